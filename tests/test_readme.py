"""The README is true: its commands parse, its files and make targets exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from flows.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", ROOT / "infra/README.md") if path.exists()]
TEXT = (ROOT / "README.md").read_text()


def commands(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize(
    "line", [line for page in PAGES for line in commands(page) if line.startswith("mathnas ")], ids=str
)
def test_its_mathnas_commands_parse(line):
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line)[1:]
    command = group.get_command(None, name)
    assert command is not None, f"{name} is no command"
    command.make_context(name, arguments, parent=None)


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", TEXT))
def test_its_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", TEXT))
def test_its_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_its_file_map_names_what_is_there():
    block = re.search(r"## File map\n\n```\n(.*?)```", TEXT, re.S).group(1)
    for line in block.splitlines():
        name = line.split()[0]
        if name.endswith((".py", "/")) and line.startswith("  "):
            assert (ROOT / "nas_core" / name).exists(), name
    modules = {path.name for path in (ROOT / "nas_core").glob("*.py")} - {"__init__.py"}
    assert all(module in block for module in modules), modules
