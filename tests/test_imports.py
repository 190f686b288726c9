"""What may be imported where, checked in fresh processes: the linter sees imports inside functions too."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
ROOT = Path(__file__).parents[1]
IMPORT_ALL = """
import importlib, pkgutil, sys
import nas_core
sys.modules.update(dict.fromkeys({blocked}))
for module in pkgutil.walk_packages(nas_core.__path__, "nas_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def loaded_by(module):
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["nas_core.program", "nas_core.study.study", "nas_core.report.collect", "flows.cli"])
def test_selecting_loads_no_framework(module):
    assert not {"torch", "timm", "ray", "prefect", "mlflow"} & loaded_by(module)


def test_a_new_worker_loads_little():
    """Every worker process of every stage pays for what these import before it can begin."""
    assert not {"torch", "timm", "prefect", "mlflow", "pandas", "scipy", "ortools"} & loaded_by("tasks.worker")
    assert not {"torch", "timm", "prefect", "mlflow", "pandas", "scipy", "ortools"} & loaded_by("tasks.ray_pool")


def test_docker_and_infra_are_no_packages(pytestconfig):
    assert not list((pytestconfig.rootpath / "docker").rglob("*.py")) + list(
        (pytestconfig.rootpath / "infra").rglob("*.py")
    )


def test_every_room_is_imported_where_there_is_no_posix():
    """As on macOS and Windows: neither we nor what we import needs a module that only POSIX has, torch included."""
    blocked = sorted(POSIX_ONLY - {"posix"})  # the interpreter's own
    subprocess.run([sys.executable, "-c", IMPORT_ALL.format(blocked=blocked)], check=True)


def test_nothing_of_ours_asks_for_posix():
    for path in (path for folder in ("nas_core", "tasks", "flows") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not POSIX_ONLY & set(names), path


def modules():
    """Name -> path of every module of nas_core; a package is the module of its ``__init__``."""
    paths = (ROOT / "nas_core").rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported_by(path, known):
    """What of ours a module imports, also inside functions; not what is only for type checkers."""
    tree = ast.parse(path.read_text())
    unseen = [node for branch in ast.walk(tree) if is_for_type_checkers(branch) for node in ast.walk(branch)]
    for node in (node for node in ast.walk(tree) if node not in unseen):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for name in node.names:
                module = f"{node.module}.{name.name}"
                yield from [one for one in (module, node.module) if one in known][:1]


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_no_modules_import_each_other_in_a_circle():
    """Neither through an import inside a function: such a circle is one module in two, or a part in the wrong one."""
    known = modules()
    imports = {name: set(imported_by(path, known)) - {name} for name, path in known.items()}
    list(graphlib.TopologicalSorter(imports).static_order())  # a CycleError names the circle
