"""Tests lie as what they test does: a file in ``tests/flows`` is named like a module of ``flows``, and begins there."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for name in ("nas_core", "tasks", "flows") for path in (ROOT / "tests" / name).rglob("test_*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_a_test_mirrors_a_module(path):
    """``test_MODULE.py``, ``test_MODULE_words.py``, or ``test_PACKAGE.py`` for what a package says of itself."""
    folder = ROOT / path.parent.relative_to(ROOT / "tests")
    subject = path.stem.removeprefix("test_")
    modules = {module.stem for module in folder.glob("*.py")} | {folder.name}
    assert any(subject == module or subject.startswith(f"{module}_") for module in modules)


MODULES = sorted((ROOT / "nas_core").rglob("*.py"))


def test_no_two_modules_share_a_name():
    stems = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "settings"))
    assert [stem for stem, count in stems.items() if count > 1] == []


def test_every_module_is_in_a_room():
    assert [path.name for path in MODULES if path.parent == ROOT / "nas_core"] == ["__init__.py"]
