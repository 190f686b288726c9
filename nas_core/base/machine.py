"""The machine that is worked on."""

import getpass
import math
import os
import platform
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from nas_core.base.errors import NasError

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_name() -> str:
    """The CPU's model name as the kernel gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cpus(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """How many CPUs this process may keep busy: by its affinity, and by the quota of its cgroups (a container's)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _cgroups(root, own) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *map(math.floor, quotas)]))


def _cgroups(root: Path, own: Path) -> Iterator[Path]:
    """Folders of the cgroups, of version 1 and 2, that limit this process's time, and of those around them."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        inner = Path(path.lstrip("/"))
        yield from (top / part for top in tops for part in (inner, *inner.parents))


def _quota(folder: Path) -> float | None:
    """CPUs that a cgroup's processes may use together; None where it does not say."""
    try:
        if (folder / "cpu.max").exists():
            most, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            return None if most == "max" else int(most) / int(period)
        most = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
        period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return int(most) / int(period) if int(most) > 0 else None


def own_folder(name: str) -> Path:
    """A folder below the machine's temporary one that is this user's alone: what lies there is imported.

    Raises:
        NasError: where somebody else has made it.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    mine = Path(tempfile.gettempdir()) / f"mathnas-{user}"
    mine.mkdir(mode=0o700, exist_ok=True)
    known = mine.lstat()
    if hasattr(os, "getuid") and (not stat.S_ISDIR(known.st_mode) or known.st_uid != os.getuid()):
        raise NasError(f"folder {mine}", "another user's", "one of this user's", "TMPDIR names another place.")
    folder = mine / name
    folder.mkdir(exist_ok=True)
    return folder


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its version, of those that are installed here."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version_of(name)
    return found


def version_of(package: str) -> str:
    """Version of a package, or of what brings a module of this name: ``onnxruntime`` is in ``onnxruntime-gpu``, too.

    Raises:
        PackageNotFoundError: where neither is installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        if not (others := packages_distributions().get(package)):
            raise
        return version(others[0])
