"""Finds our own registered classes: a file that registers one is all that adding it takes."""

import importlib
import re
from pathlib import Path

REGISTERS = re.compile(r"^@[A-Z]+\.add$", re.MULTILINE)


def import_registered(package: str) -> None:
    """Import every module of the package that registers something, in order of name; such modules need no torch."""
    module = importlib.import_module(package)
    for folder in module.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if REGISTERS.search(path.read_text(encoding="utf-8")):
                importlib.import_module(f"{package}.{path.stem}")
