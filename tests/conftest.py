"""What every run of the tests does once, so that a processor's time goes to tests."""

import contextlib
import functools
import sys

with contextlib.suppress(ImportError):  # kernels are tested where it is not installed
    from hypothesis import settings

    settings.register_profile("shared machine", deadline=None)  # of 200 ms a case: other processes decide how long one takes
    settings.load_profile("shared machine")


def pytest_collection_finish() -> None:
    """Have certificates read once: each httpx client would read this machine's anew, 23 ms of a processor, where nothing here is TLS."""
    if (transports := sys.modules.get("httpx._transports.default")) is not None:  # whoever needs it has imported it by now
        transports.create_ssl_context = functools.cache(transports.create_ssl_context)  # type: ignore[attr-defined]
