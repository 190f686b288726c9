"""The README is true: its commands parse, its files and make targets exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flows.cli import app
from tests.command import mathnas

ROOT = Path(__file__).parents[1]
WRITTEN = ("README.md", "infra/README.md", "tests/benchmarks/README.md")
PAGES = [ROOT / page for page in WRITTEN if (ROOT / page).exists()]
TEXT = (ROOT / "README.md").read_text()


def commands(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    parts = [re.sub(r"^(\w+=\S+ )+", "", part.strip()) for line in lines for part in line.split("&&")]
    return [part for part in parts if part]


LINES = list(dict.fromkeys(line for page in PAGES for line in commands(page)))


def of(program):
    return [line for line in LINES if line.startswith(f"{program} ")]


def test_every_command_is_of_a_program_that_is_checked_here():
    checked = ("mathnas", "make", "python", "prefect", "docker", "kubectl", "cp", "source")
    checked += ("export", "sed", "set", "python3")  # in tests/infra, the shell's own, run by test_elsewhere
    assert [line for line in LINES if line.split()[0] not in checked] == []


@pytest.mark.parametrize("line", of("mathnas"), ids=str)
def test_its_mathnas_commands_parse(line):
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(line)[1:]
    command = group.get_command(None, name)
    assert command is not None, f"{name} is no command"
    command.make_context(name, arguments, parent=None)


def test_its_own_code_runs(cluster, api, tmp_path, monkeypatch):
    """Started beside the study; the function's setting is its default."""
    own = TEXT.partition("## Your own code\n")[2].partition("\n## ")[0]
    (tmp_path / "size.py").write_text(re.search(r"```python\n(.*?)```", own, re.S)[1])
    named = re.search(r"The study names it: `(plugins: .*?)`, `(scorer: .*?)`, `(space: .*?)`;", own, re.S)
    (tmp_path / "study.yaml").write_text("\n".join(named.groups()))
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    monkeypatch.chdir(tmp_path)
    assert mathnas("check", "study.yaml").stdout == "scorer binary-size: all promises kept\n"
    done = mathnas("run", "study.yaml", "--root", "study", "--until", "score")
    assert done.returncode == 0, done.stderr
    assert "evaluated: 6 networks of 3 × 2 = 6" in done.stdout


@pytest.mark.parametrize("line", [*of("prefect"), *of("python")], ids=str)
def test_its_other_commands_know_their_options(line):
    program, *words = shlex.split(line)
    help_of = [word for word in words if re.fullmatch(r"[a-z][a-z.-]*", word)]  # the sub-commands, and names they take
    module = ["-m"] if program == "python" else []
    command = [str(Path(sys.executable).parent / program), *module, *help_of[: 1 if module else 2], "--help"]
    command = [word for word in command if word != "mathnas"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True).stdout
    options = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--no-prompt"}
    assert all(option in said for option in options), said


@pytest.mark.parametrize("line", [*of("docker"), *of("kubectl"), *of("cp"), *of("source")], ids=str)
def test_its_files_exist(line):
    for path in re.findall(r"(?<![\w/.])(?:docker|infra)/[\w./-]+", line):
        assert (ROOT / path).exists() or path == "docker/.env", path


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", TEXT))
def test_its_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_benchmarks_exist(page):
    named = re.findall(r"python -m\s+tests\.benchmarks\.(\w+)", page.read_text())
    assert [name for name in named if not (ROOT / f"tests/benchmarks/{name}.py").exists()] == []


def test_its_file_map_names_what_is_there():
    block = re.search(r"## File map\n\n```\n(.*?)```", TEXT, re.S).group(1)
    for line in block.splitlines():
        name = line.split()[0]
        if name.endswith((".py", "/")) and line.startswith("  "):
            assert (ROOT / "nas_core" / name).exists(), name
    rooms = {f"{path.parent.name}/" for path in (ROOT / "nas_core").glob("*/__init__.py")}
    assert rooms <= set(block.split()), rooms
