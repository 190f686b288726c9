"""Progress a person can follow: a bar in a terminal, lines when piped, an artifact in the dashboard."""

import logging
import os
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from uuid import UUID

from tasks.artifacts import asked_once
from tasks.environment import NO_PAGE
from tasks.saying import heard, tell

log = logging.getLogger(__name__)

ARTIFACT_EVERY_S = 2.0
LINE_EVERY_S = 10.0


@dataclass
class Progress:
    """Counts one stage's work; use as a context manager.

    ``total`` and ``done`` count evaluations (or whatever ``noun`` names);
    ``done`` starts at what the store already holds.
    """

    stage: str
    total: int
    done: int = 0
    failed: int = 0
    noun: str = "networks"
    _began: float = 0.0
    _started: float = 0.0  # what the rate is of
    _moved: float = 0.0  # when more was done last
    _done_before: int = 0
    _last_line: float = 0.0
    _last_artifact: float = 0.0
    _note: str = ""
    _told: str = ""
    _jobs: dict[int, tuple[int, int]] = field(default_factory=dict)
    _shown: tuple[int, int, str] | None = None
    _bar: Any = None
    _bar_task: Any = None
    _artifact_id: UUID | None = None

    def __enter__(self) -> "Progress":
        self._began = self._started = self._moved = time.monotonic()
        self._done_before = self.done
        if sys.stderr.isatty():
            self._bar = _terminal_bar()
            self._bar.start()
            self._bar_task = self._bar.add_task(self.stage, total=max(self.total, 1), completed=self.done, text="")
        try:
            self.show(force=True)
        except BaseException:  # Ctrl-C just now: a bar that is left running draws over what is said of it
            self._stop_bar()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show(force=True)
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, done: int, failed: int = 0) -> None:
        """More is done, of which some failed."""
        self.failed += failed
        self._has_done(self.done + done)

    def note(self, done: int, total: int, note: str) -> None:
        """How far the present unit is, such as epochs of a training."""
        self.of_job(0, done, total, note)

    def of_job(self, index: int, done: int, total: int, note: str) -> None:
        """How far one of several jobs is, as ``run_jobs`` tells it; the whole is what all have told."""
        if index not in self._jobs:  # what it begins with is of an earlier run, and says nothing of the rate
            if not self._jobs:
                self._started, self._done_before = time.monotonic(), 0
            self._done_before += done
        self._jobs[index] = done, total
        known = self._jobs.values()
        self.total, self._note = sum(total for _, total in known), note
        self._has_done(sum(done for done, _ in known))

    def _has_done(self, done: int) -> None:
        if done != self.done:
            self.done, self._moved = done, time.monotonic()
        self.show()

    @property
    def _is_over(self) -> bool:
        return self.done >= self.total > 0

    @property
    def text(self) -> str:
        """done/total, rate, estimated time left, failures; at the end how long it took."""
        now = time.monotonic()
        new, elapsed, waited = self.done - self._done_before, self._moved - self._started, now - self._began
        percent = self.noun == "%"  # a share of the work, whose rate means nothing
        alike = self.noun != "resources"  # some are counted in no time, others measured for minutes
        words = [
            f"{100 * self.done / max(self.total, 1):.0f} %" if percent else f"{self.done}/{self.total} {self.noun}"
        ]
        if self._note and not self.total:  # a job that has nothing to count says what it does
            words = []
        if self._is_over:
            words.append(f"in {_clock(waited)}" if waited >= 1 else "")
        elif new > 0 and elapsed > 0 and alike:
            rate = new / elapsed
            if not percent:
                words.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            words.append(f"{_clock(self._left_s(1 / rate, now - self._moved))} left")
        elif waited >= LINE_EVERY_S:
            words.append(f"at work for {_clock(waited)}")
        words.append(f"{self.failed} failed" if self.failed else "")
        words.append(self._note)
        return ", ".join(word for word in words if word)

    def _left_s(self, each_s: float, since_s: float) -> float:
        """Seconds left: what is under way is taken to end next, however long nothing was heard of it."""
        others = self.total - self.done - 1
        return max(others * each_s, (others + 1) * each_s - since_s)

    def show(self, force: bool = False) -> None:
        """Where a person looks, as often as that is worth while; called also while nothing moves."""
        now = time.monotonic()
        if self._bar is not None:
            heard()
            self._bar.update(self._bar_task, completed=self.done, total=max(self.total, 1), text=self.text)
        elif force or (now - self._last_line >= LINE_EVERY_S and not self._is_over):  # the end is told when it is left
            self._last_line = now
            self._tell(f"{self.stage}: {self.text}")
        known = self.done, self.failed, self._note
        if force or (known != self._shown and now - self._last_artifact >= ARTIFACT_EVERY_S):
            self._last_artifact, self._shown = now, known
            self._update_artifact()

    def _tell(self, line: str) -> None:
        """Say what was not said last: a stage that has nothing to do begins as it ends."""
        if line != self._told:
            self._told = line
            tell(line)

    def _update_artifact(self) -> None:
        if os.environ.get(NO_PAGE):
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import get_run_context
        from prefect.exceptions import MissingContextError

        try:
            get_run_context()
        except MissingContextError:
            return
        percent = 100.0 * self.done / max(self.total, 1)
        words = f"{self.stage}: {self.text}"
        try:
            with asked_once():
                if self._artifact_id is None:
                    artifact: Any = create_progress_artifact(progress=percent, description=words)
                    self._artifact_id = artifact
                else:
                    update_progress_artifact(self._artifact_id, progress=percent, description=words)
        except Exception as error:  # the dashboard may be away; the work goes on
            log.warning("progress artifact not written: %s", error)


def _terminal_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    columns = (
        SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}"),
    )
    return RichProgress(*columns, console=console)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
