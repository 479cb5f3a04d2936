"""What every run of the tests does once, so that a processor's time goes to tests."""

import functools
import sys


def pytest_collection_finish() -> None:
    """Have certificates read once: each httpx client would read this machine's anew, 23 ms of a processor, where nothing here is TLS."""
    if (transports := sys.modules.get("httpx._transports.default")) is not None:  # whoever needs it has imported it by now
        transports.create_ssl_context = functools.cache(transports.create_ssl_context)  # type: ignore[attr-defined]
