"""The processes of a service: all of it in one, or a front or an engine's process as a child of the supervisor.

`python -m indrnn.service.process ROLE NAME SHARDS CONTROL [LISTENER...]` is how the supervisor starts a child; the last are descriptors.
Where there are several shards, the number of an engine's is the end of its name.
A child hears from the supervisor over CONTROL, a byte at a time, some with a socket, and tells it in bytes; where that ends, so does it.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import uvicorn

from indrnn.export.bundle import BundleError
from indrnn.service.app import Application, create_application, read_access, wired
from indrnn.service.drain import ENGINES, Drain, DrainingServer
from indrnn.service.engine.calls import Charged, Note, StreamsOpen
from indrnn.service.engine.runtime import EngineError
from indrnn.service.engine.statistics import Totals
from indrnn.service.http.cors import open_to
from indrnn.service.http.metrics import Metrics, Sources
from indrnn.service.link.engine import Host, Scrape
from indrnn.service.link.front import FrontBackend, RemoteProbe, RemoteQuotas, RemoteRegistry, RemoteRepository, Tally
from indrnn.service.link.leader import Leader
from indrnn.service.link.shards import ShardedBackend
from indrnn.service.logs import set_up
from indrnn.service.oip.infer_http import InferHttp
from indrnn.service.revision import revision
from indrnn.service.serving.backend import Backend
from indrnn.service.serving.connections import Places
from indrnn.service.serving.request import KeysError
from indrnn.service.serving.services import BackendPort, Services
from indrnn.service.serving.sessions import Sessions
from indrnn.service.serving.steps import StepRouter
from indrnn.service.session.shard import UNDIVIDED, Shard
from indrnn.service.settings import Settings, SettingsError, read_settings
from indrnn.service.store.address import is_file
from indrnn.service.store.protocol import StoreError
from indrnn.service.supervisor import ALIVE, LINK, NEED, READY
from indrnn.service.wire.websocket import Wire

log = logging.getLogger(__name__)

BEAT = 1.0  # seconds between signs of life
LAST = 0.95  # part of the time by which the engine's process lets go of fronts that are still there
BACKLOG = 2_048  # connections that nobody has accepted yet
LOOK = 0.01  # seconds between looks whether the fronts have gone
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve_alone(settings: Settings) -> int:
    """Run the whole service in this process. Raises BundleError, EngineError, StoreError, KeysError."""
    _tune()
    backend = Backend.open(settings)
    try:
        application = create_application(settings, backend)
    except KeysError:
        backend.close()
        raise
    server = _web_server(settings, backend, application)
    _settle()
    with contextlib.suppress(SystemExit):  # uvicorn's, of several numbers, where it could not begin and has said why
        server.run()
    return 0 if server.started else 1


def _tune() -> None:
    sys.setswitchinterval(5e-4)  # seconds the engine thread waits for the interpreter at most; Python's 5 ms would be a batch


def _settle() -> None:
    gc.freeze()  # what start-up made stays; and frames are lists of lists, which would set off a collection every few messages
    gc.set_threshold(50_000, 20, 50)


def _web_server(settings: Settings, backend: BackendPort, application: Application, supervised: bool = False) -> DrainingServer:
    origins = application.access.origins
    config = uvicorn.Config(
        open_to(origins, application.asgi),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        http=InferHttp.of(application.oip, settings.header_timeout, settings.send_timeout, bool(origins)),
        ws=Wire,
        ws_max_size=settings.max_drain,  # a longer message than max_body is answered, a longer one than this closes the connection
        ws_per_message_deflate=False,
    )
    return DrainingServer(config, Drain(backend, settings.drain_timeout, application.goodbyes), supervised)


# --- children ---------------------------------------------------------------------------------------------------------------------------


class Control:
    """A child's end of the line to the supervisor. `linked` is given each socket that comes, and what was said with it."""

    def __init__(self, line: socket.socket, linked: Callable[[int, socket.socket], None]) -> None:
        line.setblocking(False)
        self._line = line
        self._linked = linked
        asyncio.get_running_loop().add_reader(line, self._readable)

    def say(self, what: bytes) -> None:
        """Tell the supervisor something."""
        with contextlib.suppress(OSError):  # it is gone, which `_readable` finds out, or hears nothing for minutes
            self._line.send(what)

    def _readable(self) -> None:
        try:
            said, fds, _, _ = socket.recv_fds(self._line, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            said, fds = b"", []
        if not said:
            log.error("the supervisor is gone")
            os._exit(1)  # what is stored is stored, and nobody is left to start anything again
        for fd in fds:
            self._linked(said[0], socket.socket(fileno=fd))

    async def beat(self, lively: Callable[[], bool] = lambda: True) -> None:
        """Give signs of life until this is cancelled, as long as what does the work is lively."""
        while True:
            if lively():
                self.say(ALIVE)
            await asyncio.sleep(BEAT)


def front_services(settings: Settings, backend: FrontBackend) -> Services:
    """Return the services as a front has them. Raises KeysError."""
    link, totals, places = backend.engines, Totals(), Places(settings.max_connections)
    quotas = RemoteQuotas(settings, link)
    registry = RemoteRegistry(link, quotas)
    steps = StepRouter(backend.models, registry, backend.tickets)
    backend.forget = steps.forget
    tally = Tally(link, places, totals)

    def noted(note: Note) -> None:
        if isinstance(note, StreamsOpen):
            places.elsewhere = sum(note)
        elif isinstance(note, Charged):
            quotas.charged_elsewhere(note)

    link.noted = noted
    return Services(
        settings,
        read_access(settings),
        backend,
        backend.models,
        steps,
        Sessions(steps),
        registry,
        RemoteRepository(backend),
        places,
        RemoteProbe(link),
        totals,
        lambda: [tally.keep()],
        scrape=tally.scrape,
    )


async def _front(settings: Settings, shards: int, line: socket.socket, listeners: Sequence[socket.socket]) -> int:
    def need(shard: int = 0) -> None:
        control.say(bytes([NEED + shard]))

    backend = FrontBackend(settings, need) if shards == 1 else ShardedBackend(settings, need, shards)
    control = Control(line, backend.attach)
    services = front_services(settings, backend)
    beating = asyncio.create_task(control.beat())
    await backend.known.wait()
    server = _web_server(settings, backend, wired(services), supervised=True)
    try:
        for one in listeners:
            one.listen(BACKLOG)  # here, and not by uvloop, which says nothing where another service listens already
    except OSError as error:
        raise SettingsError(
            f"PORT: {settings.host}:{settings.port} cannot be listened on: {(error.strerror or str(error)).lower()}"
        ) from error
    started = asyncio.create_task(_say_when_started(server, control))
    _settle()
    try:
        await server.serve(list(listeners))
    finally:
        beating.cancel()
        started.cancel()
        backend.engines.close()
    return 0 if server.started else 1


async def _say_when_started(server: uvicorn.Server, control: Control) -> None:
    while not server.started:  # noqa: ASYNC110  # it sets no event
        await asyncio.sleep(LOOK)
    control.say(READY)


async def _engine(settings: Settings, backend: Backend, line: socket.socket, host: "list[Host]") -> int:
    here = Host(backend)
    host.append(here)
    leader: Leader | None = None

    def linked(said: int, link: socket.socket) -> None:
        if said == LINK:
            here.attach(link)
        elif leader is not None:
            leader.attach(said, link)

    control = Control(line, linked)
    if backend.shard.of > 1 and backend.shard.number == 0:
        leader = Leader(here, backend.shard, lambda shard: control.say(bytes([NEED + shard])), is_file(settings.store))
    here.scrape = _scrape(here, leader)
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            return  # a manager's signal to all and the supervisor's to each are one; the supervisor kills, the second time
        backend.drain(settings.drain_timeout * ENGINES)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    chores = [backend.sweep(here.totals), here.keep_telling(), control.beat(backend.lively)]
    if settings.poll and backend.shard.number == 0:
        chores.append(here.repository.watch(settings.poll))
    tasks = [asyncio.create_task(chore) for chore in chores]
    control.say(READY)
    _settle()
    await stopping.wait()
    until = time.monotonic() + settings.drain_timeout * LAST
    while here.fronts and time.monotonic() < until:  # noqa: ASYNC110  # no event says that it was the last
        await asyncio.sleep(LOOK)
    for task in tasks:
        task.cancel()
    if leader is not None:
        leader.close()
    here.close()
    await asyncio.to_thread(backend.close)
    return 0


def _scrape(here: Host, leader: Leader | None) -> Scrape:
    """Return what answers scrapers: with the numbers of all shards, where there are several."""
    models, totals = (here.models.__iter__, here.totals) if leader is None else (leader.summed, leader.totals)
    numbers = Metrics(Sources(models, totals, here.registry.census, here.streams, here.repository.unavailable, revision()))

    async def scrape(accept: str) -> tuple[bytes, str]:
        if leader is not None:
            await leader.gather()
        return await numbers.text(accept)

    return scrape


def _run(main: Coroutine[Any, Any, int]) -> int:
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # where it does not run
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _end_with_parent() -> None:
    """Ask the system to kill this process when the supervisor ends, however that does: reading CONTROL takes a process that runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    """Be a child."""
    role, name, shards, control, *listeners = argv
    _end_with_parent()
    line = socket.socket(fileno=int(control))
    try:
        settings = read_settings()
        set_up(settings.log_level, settings.log_format, name)
        _tune()
        if role == "front":
            first = settings if name == "front-0" else settings.model_copy(update={"grpc_port": None})
            return _run(_front(first, int(shards), line, [socket.socket(fileno=int(fd)) for fd in listeners]))
        host: list[Host] = []
        shard = UNDIVIDED if shards == "1" else Shard(int(name.rpartition("-")[2]), int(shards))
        backend = Backend.open(settings, lambda deliveries, *times: host[0].answer(deliveries, *times), shard)
        return _run(_engine(settings, backend, line, host))
    except (SettingsError, BundleError, EngineError, StoreError, KeysError) as error:
        print(f"indrnn: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
