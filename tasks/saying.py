"""Status lines at the terminal, so that the user sees that the run is alive.

Errors of a terminal that was closed are ignored.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SILENT_S = 20.0  # the longest time in which nothing is said
NAMED_S = 4.0  # a step that takes longer is named, so that a wait has a reason
LOOK_S = 1.0


@dataclass(eq=False)
class _Doing:
    """What is being done, since when, and whether anything was said meanwhile."""

    what: str
    since: float = field(default_factory=time.monotonic)
    said: bool = False


class _Heard:
    """When something was said last, and what is being done."""

    at = time.monotonic()
    doing: "list[_Doing]" = []  # noqa: RUF012 (one process, one terminal)


def heard() -> None:
    """Something was said or drawn just now, which shows that the present step goes on."""
    _Heard.at = time.monotonic()
    for step in _Heard.doing:
        step.said = True


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
    entry = _Doing(what)
    _Heard.doing.append(entry)
    try:
        yield
    finally:
        _Heard.doing.remove(entry)


@contextlib.contextmanager
def never_silent() -> Iterator[None]:
    """As long as this lasts, a line is said every ``SILENT_S`` where nothing else was; of a step with a name sooner."""
    at_work = _Doing("at work", said=True)
    heard()

    def look() -> None:
        now, present = time.monotonic(), (_Heard.doing or [at_work])[-1]
        is_new = not present.said and now - max(_Heard.at, present.since) >= NAMED_S
        if is_new or now - _Heard.at >= SILENT_S:
            tell(f"mathnas: {present.what} ({now - present.since:.0f} s)")

    with repeatedly(look, LOOK_S, "never-silent"):
        yield


@contextlib.contextmanager
def repeatedly(look: Callable[[], None], every_s: float, name: str) -> Iterator[None]:
    """As long as this lasts, ``look`` is called every so often by a thread of that name."""
    ends = threading.Event()

    def watch() -> None:
        while not ends.wait(every_s):
            look()

    watcher = threading.Thread(target=watch, name=name, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ends.set()
        watcher.join()
