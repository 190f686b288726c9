"""What a person at the terminal hears: a line now and then, whatever happens, so that a run that works is known to.

A terminal that has gone ends no work.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator

log = logging.getLogger(__name__)

SILENT_S = 20.0  # the longest time in which nothing is said
LOOK_S = 1.0


class _Heard:
    """When something was said last, and what is being done."""

    at = time.monotonic()
    doing: "list[tuple[str, float]]" = []  # noqa: RUF012 (one process, one terminal)


def heard() -> None:
    """Something was said or drawn just now."""
    _Heard.at = time.monotonic()


def tell(line: str) -> None:
    """Print one line as it is on standard error."""
    heard()
    with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell something that is worth a line of its own."""
    log.info("%s", text)
    tell(f"mathnas: {text}")


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """What is being done meanwhile, for the line that is said where nothing else is."""
    entry = what, time.monotonic()
    _Heard.doing.append(entry)
    try:
        yield
    finally:
        _Heard.doing.remove(entry)


@contextlib.contextmanager
def never_silent() -> Iterator[None]:
    """As long as this lasts, a line is said every ``SILENT_S`` where nothing else was."""
    ends = threading.Event()
    heard()
    began = "at work", time.monotonic()

    def watch() -> None:
        while not ends.wait(LOOK_S):
            now = time.monotonic()
            if now - _Heard.at >= SILENT_S:
                what, since = (_Heard.doing or [began])[-1]
                tell(f"mathnas: {what} ({now - since:.0f} s)")

    watcher = threading.Thread(target=watch, name="never-silent", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ends.set()
