"""A TCP proxy on a port of its own that cuts its connections at random places, mid-message and mid-handshake."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from random import Random


class Cutter:
    """Forwards to `target` on loopback; each connection is cut after `low` to `high` bytes of both directions together."""

    def __init__(self, target: int, seed: int, low: int, high: int) -> None:
        self.target = target
        self.port = 0
        self.cuts = 0
        self.gentle = False  # cuts no more
        self.frozen = False  # reads no more, and says nothing
        self._random = Random(seed)
        self._range = low, high
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Cutter":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        here = asyncio.current_task()
        running = [t for t in asyncio.all_tasks() if t is not here]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = None
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
            left = [self._random.randint(*self._range)]
            pumps = [asyncio.create_task(self._pump(*ends, left)) for ends in ((reader, far), (far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):  # nobody is there, or the test is over
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                if self.frozen:
                    await self._stopping.wait()
                part = data if self.gentle else data[: left[0]]
                left[0] -= len(part)
                writer.write(part)
                await writer.drain()
                if len(part) < len(data):
                    self.cuts += 1
                    return


@contextlib.contextmanager
def cutting(target: int, seed: int = 0, low: int = 300, high: int = 6_000) -> Iterator[Cutter]:
    cutter = Cutter(target, seed, low, high).start()
    try:
        yield cutter
    finally:
        cutter.stop()
