"""The conditions a benchmark ran under: versions, cores, platform. Every figure is printed beside them."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mathnas", "numpy", "scipy", "scikit-learn", "ortools", "torch", "ray")


def conditions(**settings: object) -> dict[str, object]:
    """Versions, cores and platform, with what the benchmark adds (seeds, sample counts)."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES if _version(name)},
        **settings,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
