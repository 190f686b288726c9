"""How soon work stops after a cancellation, and that it does not begin again."""

import time
from collections.abc import Callable

PATIENCE_S = 300.0
STAYS_STOPPED_S = 8.0  # longer than a task waits before it is tried again


def seconds_to_stop(is_working: Callable[[], object], has_ended: Callable[[], bool]) -> tuple[float, float]:
    """From now on: seconds after which work was last seen, and after which the run had ended."""
    began = last_seen = time.monotonic()
    while not has_ended():
        assert time.monotonic() < began + PATIENCE_S, "the run does not end"
        if is_working():
            last_seen = time.monotonic()
        time.sleep(0.1)
    ended = time.monotonic()
    while time.monotonic() < ended + STAYS_STOPPED_S:
        assert not is_working(), "work goes on after the run's end"
        time.sleep(0.1)
    return last_seen - began, ended - began
