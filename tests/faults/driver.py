"""A study's driver as `mathnas` starts it, with evaluations that take their time and can be told to be deadly.

    python -m tests.faults.driver SECONDS POISON COMMAND...

SECONDS is what an evaluation takes (so that a random moment falls inside one),
POISON a genotype that kills its worker process, or "". In the environment,
FAULTS_DEATH=memory lets it die of the machine's memory instead of a signal, and
FAULTS_CLOCK=jumps makes the driver's clock jump by a day to and fro.
"""

import os
import signal
import sys
import time

from tasks import scoring

SECONDS, POISON, *COMMAND = sys.argv[1:] if __name__ == "__main__" else (os.environ.get("FAULTS", "0,").split(","))


class SlowEvaluator(scoring.Evaluator):
    """The real one, taking ``SECONDS`` longer for each network; dies of the poisoned one."""

    def run(self, batch: list[str]) -> int:
        for genotype in batch:
            time.sleep(float(SECONDS))
            if genotype == POISON:
                die()
        return super().run(batch)


def die() -> None:
    """By a signal, or by taking memory until Ray's monitor ends this process."""
    if os.environ.get("FAULTS_DEATH") == "memory":
        hoard = []
        while len(hoard) < 64:  # no more than 6.4 GB where nobody watches
            hoard.append(b"x" * 100_000_000)
            time.sleep(0.05)
        time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)


def let_the_clock_jump() -> None:
    """The wall clock is a day ahead, then a day behind, at every other reading."""
    real, days = time.time, [0.0, 86_400.0, -86_400.0]
    readings = iter(range(10**12))
    time.time = lambda: real() + days[next(readings) // 50 % 3]


def main() -> None:
    from tests.faults.driver import SlowEvaluator  # by its module's name, as the workers import it

    os.environ["FAULTS"] = f"{SECONDS},{POISON}"  # inherited by the local Ray's workers
    scoring.Evaluator = SlowEvaluator
    if os.environ.get("FAULTS_CLOCK") == "jumps":
        let_the_clock_jump()
    sys.argv = ["mathnas", *COMMAND]
    from flows.cli import main as mathnas

    mathnas()


if __name__ == "__main__":
    main()
