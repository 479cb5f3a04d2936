"""What Lightning says during training that nobody who trains can act on. All else it says is shown."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = "lightning.pytorch.utilities.rank_zero"
WARNINGS = {
    "Checkpoint directory .* exists and is not empty": "last.ckpt is replaced on purpose",
    "The dirpath has changed": "a run goes on in the folder that it was moved to",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "Lightning's own use of torch",
    "You're resuming from a checkpoint that ended before the epoch ended": "batches are drawn from the step's number, not from a reader",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves these warnings out, an advertisement that Lightning logs, and its word on Ctrl-C, of which training says more."""
    logger = logging.getLogger(LOGGER)
    with warnings.catch_warnings():
        for message in WARNINGS:
            warnings.filterwarnings("ignore", message, module="lightning")
        logger.addFilter(_no_advertisement)
        try:
            yield
        finally:
            logger.removeFilter(_no_advertisement)


def _no_advertisement(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in ("litlogger", "Detected KeyboardInterrupt"))
