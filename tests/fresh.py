"""A Python that has some packages and what they require, and nothing of ours; made of links, so in a second."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def fresh_python(folder: Path, packages: Iterable[str]) -> Path:
    """The interpreter of a new virtual environment in the folder with these distributions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    paths = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    target, source = Path(paths.stdout.strip()), Path(sysconfig.get_path("purelib"))
    for name in _top_level(packages):
        if (source / name).exists() and not (target / name).exists():
            os.symlink(source / name, target / name)
    return python


def _top_level(packages: Iterable[str]) -> set[str]:
    """Names in site-packages of the distributions and of all that they require."""
    wanted, seen, names = list(packages), set[str](), set[str]()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        names |= {Path(str(path)).parts[0] for path in found.files or ()} - {".."}
        required = map(Requirement, found.requires or ())
        wanted += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    return names
