"""Optional parts of the installation: the modules that are named are those that ``pyproject.toml`` installs."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.extras import MODULES, need, not_installed
from nas_core.base.errors import ConfigError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"nas_core", "tasks", "flows"}
# module: the package that needs it
BROUGHT_BY_OTHERS = {
    "httpx": "prefect",
    "packaging": "ray",
    "markupsafe": "jinja2",
    "pandas": "mlflow",
    "pydantic_core": "pydantic",
}
OPTIONAL = {"torch_pruning"}  # asked for by name; a line says how to install it where it is not
USED_BY_TORCH = {"onnx", "onnxscript"}  # by its export


def distributions(texts):
    """Names of the required packages, those of extras of our own included."""
    for text in texts:
        wanted = Requirement(text)
        if wanted.name == PROJECT["name"]:
            yield from (name for extra in wanted.extras for name in distributions(extras()[extra]))
        else:
            yield canonicalize_name(wanted.name)


def extras():
    return PROJECT["optional-dependencies"]


def modules_of(names):
    names = set(names)
    for module, owners in importlib.metadata.packages_distributions().items():
        if names & set(map(canonicalize_name, owners)):
            yield module


def imported():
    """Top-level modules that our code imports, also inside functions."""
    for path in (path for folder in OURS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_brings_the_modules_named(extra):
    assert set(MODULES[extra]) <= set(modules_of(distributions(extras()[extra])))


def test_every_import_is_of_something_that_is_installed():
    always = set(modules_of(distributions(PROJECT["dependencies"])))
    known = always | set(MODULES["run"]) | set(BROUGHT_BY_OTHERS) | OURS | sys.stdlib_module_names
    assert set(imported()) - known == OPTIONAL
    assert set(BROUGHT_BY_OTHERS.values()) <= set(MODULES["run"]) | always
    assert set(MODULES["run"]) - USED_BY_TORCH <= set(imported())


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    need("run", "run")
    monkeypatch.setitem(sys.modules, "prefect", None)
    need("networks", "profile --space")
    with pytest.raises(ConfigError, match=r"run: found no prefect, .* pip install 'mathnas\[run\]'"):
        need("run", "run")


def test_a_folder_named_like_a_package_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "prefect").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    with pytest.raises(ConfigError, match="prefect"):
        need("run", "run")


@pytest.mark.parametrize(
    ("name", "extra"),
    [("torch.nn", "networks"), ("jinja2", "report"), ("onnxruntime", "export"), ("mlflow", "run"), ("nowhere", None)],
)
def test_a_failed_import_names_the_least_extra(name, extra):
    words = not_installed(ModuleNotFoundError(f"No module named {name!r}", name=name))
    assert (words is None) == (extra is None)
    assert extra is None or f"mathnas[{extra}]" in str(words)


def test_a_command_says_it_in_one_line(tmp_path):
    """In a process in which the modules cannot be imported; the real thing is in ``tests/test_install.py``."""
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'prefect'])); from flows.cli import main; main()"
    config = tmp_path / "study.yaml"
    config.write_text("name: s\nspace: {name: tiny}\n")
    for arguments, extra in ((["run", str(config)], "run"), (["run", str(config), "--dry-run"], "networks")):
        done = subprocess.run(
            [sys.executable, "-c", block, *arguments, "--root", str(tmp_path / "root")], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert f"pip install 'mathnas[{extra}]'" in done.stderr
    assert not (tmp_path / "root").exists()
