"""A real redis-server for tests, set as the service wants it; and a way between that loses answers."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@dataclass
class RedisProcess:
    """A Redis in a process of its own. What it has been told outlives `kill` and `start`."""

    folder: Path
    options: tuple[str, ...] = ("--appendfsync", "always")
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisProcess":
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs redis-server (Debian's package of that name)")
        base = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--appendonly", "yes", "--save", "")
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([program, *base, *self.options], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return self
            time.sleep(0.005)
        raise AssertionError((self.folder / "redis.log").read_text())

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, password=self._option("--requirepass"))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def _option(self, name: str) -> str | None:
        return self.options[self.options.index(name) + 1] if name in self.options else None


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisProcess]:
    made = RedisProcess(folder, options or RedisProcess.options).start()
    try:
        yield made
    finally:
        made.kill()


class LossyProxy:
    """Forwards to a Redis. Of the next `lose` answers that contain bytes, each closes its connection instead of arriving."""

    def __init__(self, port: int) -> None:
        self.lose = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._open = ExitStack()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            for s in (client, server):
                self._open.callback(s.close)
            for source, sink in ((client, server), (server, client)):
                thread = threading.Thread(target=self._forward, args=(source, sink, source is server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.lose:
                    self.lose -= 1
                    break
                sink.sendall(data)
        for s in (source, sink):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(10)
        self._open.close()
        for thread in self._threads[1:]:
            thread.join(10)
