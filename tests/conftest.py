"""What every run of the tests does once, so that a processor's time goes to tests."""

import functools
import gc
import sys


def pytest_collection_finish() -> None:
    """All that tests import is there: each httpx client would read this machine's certificates anew, 23 ms of a processor, for no TLS.

    What has been imported and collected is some 800,000 objects that live until the end: no collection of garbage has to look at them.
    """
    if (transports := sys.modules.get("httpx._transports.default")) is not None:
        transports.create_ssl_context = functools.cache(transports.create_ssl_context)  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()
