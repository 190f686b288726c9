"""The wheel as people install it, without extras: it solves, and opens what a whole installation has stored."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("torch", "timm", "prefect", "ray", "mlflow", "matplotlib")

pytestmark = pytest.mark.slow  # and asks the package index


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The command `mathnas` of a fresh environment with the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("install")
    for name in ("nas_core", "tasks", "flows"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"], check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "-c", ROOT / "constraints.txt", *folder.glob("*.whl")], check=True)
    return python.with_name("mathnas")


@pytest.fixture(scope="module")
def command(installed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments):
        return subprocess.run(
            [installed, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={"PATH": "/usr/bin:/bin"},
        )

    return run


@pytest.fixture
def stored(tabular_config, api, cluster, tmp_path):
    """A study run by this environment, which has everything."""
    from flows.study import run_study

    root = str(tmp_path / "study")
    run_study(tabular_config, root, until="verify")
    return root


def test_nothing_heavy_is_installed(installed):
    packages = next((installed.parents[1] / "lib").glob("python*")) / "site-packages"
    assert not {path.name for path in packages.iterdir()} & set(LEFT_OUT)


def test_it_says_what_it_can(command, tmp_path):
    assert "Usage: mathnas" in command("--help").stdout
    assert command("init", tmp_path / "study.yaml").returncode == 0
    assert "nasbench-macro" in command("spaces").stdout


def test_a_problem_is_solved(command, tmp_path):
    problem = {"score": [[0, 1, 2], [0, 3]], "costs": {"flops": [[1, 2, 9], [1, 2]]}, "budgets": ["flops <= 4"]}
    (tmp_path / "problem.json").write_text(json.dumps(problem))
    done = command("select", tmp_path / "problem.json", "--json")
    assert [row["genotype"] for row in json.loads(done.stdout)["selections"]] == ["1-1"], done.stderr


def test_a_structure_is_designed(command):
    arguments = ("--family", "mobilenet", "--params", "40 k", "--resolution", "32", "--strides", "1,2", "--gap", "0.5")
    done = command("design", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["params"] <= 40_000


def test_a_stored_study_is_read(command, stored):
    from nas_core.study.study import Study

    states = json.loads(command("status", stored, "--json").stdout)["stages"]
    assert [states[stage]["state"] for stage in ("profile", "score", "select", "verify")] == ["done"] * 4
    done = command("select", stored, "--limit", "params<=1.5 M", "--json")
    answer = json.loads(done.stdout)
    here = Study.open(stored).select(["params<=1.5 M"], top=1, min_distance=1, time_limit_s=60).selections[0]
    best = answer["selections"][0]  # of several networks that are one function either may stand first
    assert answer["status"] == "optimal", done.stderr
    assert (best["predicted"], best["costs"]) == (pytest.approx(here.predicted), here.costs)


def test_what_is_not_installed_is_said_in_one_line(command, tmp_path):
    command("init", tmp_path / "study.yaml")
    for arguments, extra in (
        (("run", tmp_path / "study.yaml", "--root", tmp_path / "root"), "run"),
        (("run", tmp_path / "study.yaml", "--dry-run"), "networks"),
        (("serve",), "run"),
        (("design", "--params", "40 k", "--out", tmp_path / "out"), "report"),
    ):
        done = command(*arguments)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert f"pip install 'mathnas[{extra}]'" in done.stderr
    assert not (tmp_path / "root").exists()
