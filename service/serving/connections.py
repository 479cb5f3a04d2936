"""How many clients may keep a connection open for as long as they like: WebSocket and gRPC streams together."""

from collections.abc import Iterator
from contextlib import contextmanager

from indrnn.service.engine.requests import ClientProtocol
from indrnn.service.errors import Overloaded


class Places:
    """The open streams, at most so many, with those that other processes of the service have open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.elsewhere = 0
        self.taken: dict[ClientProtocol, int] = {"stream": 0, "oip_grpc": 0}

    @contextmanager
    def one(self, protocol: ClientProtocol) -> Iterator[None]:
        """A place while its stream is open. Raises Overloaded."""
        taken = sum(self.taken.values()) + self.elsewhere
        if taken >= self._most:
            raise Overloaded(f"{taken} connections are open already", retry_after=1)
        self.taken[protocol] += 1
        try:
            yield
        finally:
            self.taken[protocol] -= 1
