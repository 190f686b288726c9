"""CPU, memory and GPU use of a worker while it trains, sampled by a thread and logged with the run."""

import threading
from types import TracebackType
from typing import Any

SAMPLE_EVERY_S = 5.0


class SystemMetrics:
    """Samples while it is entered; ``samples`` has one mapping of name -> value each, in MLflow's names."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "SystemMetrics":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        import psutil

        process = psutil.Process()
        process.cpu_percent()  # the first reading only starts the clock
        while not self._stop.wait(SAMPLE_EVERY_S):
            self.samples.append(_sample(process))
        self.samples.append(_sample(process))


def _sample(process: Any) -> dict[str, float]:
    sample = {
        "cpu_utilization_percentage": process.cpu_percent(),
        "system_memory_usage_megabytes": process.memory_info().rss / 1e6,
    }
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        sample["gpu_0_memory_usage_megabytes"] = torch.cuda.memory_allocated() / 1e6
    return sample
