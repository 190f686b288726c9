"""Quiet while a library writes of itself: on the screen, in warnings, in logs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence(*, logs: bool = False) -> Iterator[None]:
    """Nothing is printed and no warning shown; with ``logs`` nothing is logged either, but what is critical."""
    before = logging.root.manager.disable
    if logs:
        logging.disable(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
