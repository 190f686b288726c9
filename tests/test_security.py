"""Nothing loads pickles, no YAML makes objects, no secret is written down, the licences are known."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nas_core.base.errors import ClusterError
from nas_core.study.study import Study

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("nas_core", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))
PLANTED = "pLanted-s3cret-value"
STRONG_COPYLEFT = re.compile(r"\b(A?GPL)(?!.*exception)", re.IGNORECASE)


def calls(path):
    """(name, keywords) of every call in a file, such as ("torch.load", {"weights_only"})."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_evaluated(path):
    assert not {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"} & set(imports(path))
    for name, keywords in calls(path):
        if name == "torch.load":
            assert keywords.get("weights_only") == "True"
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False"
        assert name not in ("eval", "exec", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "os.system")
        assert keywords.get("shell", "False") == "False"


def test_servers_bind_to_this_machine():
    for path in SOURCES:
        assert "0.0.0.0" not in path.read_text(), path


def test_a_planted_secret_is_written_nowhere(tabular_config, tmp_path):
    """A password in every address and variable that may hold one; then every byte of output and of every file."""
    config, root = tmp_path / "study.yaml", tmp_path / "study"
    config.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    secrets = {
        "AWS_SECRET_ACCESS_KEY": PLANTED,
        "RAY_AUTH_TOKEN": PLANTED,
        "PREFECT_API_AUTH_STRING": f"user:{PLANTED}",
        "MLFLOW_TRACKING_PASSWORD": PLANTED,
        "MATHNAS_WEBHOOK_URL": f"https://hooks.example/{PLANTED}",
    }
    addresses = [
        {},
        {"MLFLOW_TRACKING_URI": f"http://user:{PLANTED}@127.0.0.1:1"},
        {"MLFLOW_TRACKING_URI": f"postgresql+psycopg2://user:{PLANTED}@127.0.0.1:1/mlflow"},
        {"PREFECT_API_URL": f"http://user:{PLANTED}@127.0.0.1:1/api"},
    ]
    for address in addresses:
        until = ["--until", "profile"] if not address else []
        command = [sys.executable, "-m", "flows.cli", "run", str(config), "--root", str(root), *until]
        if "postgresql" in str(address):  # not looked at before the report: ask for that
            command = [sys.executable, "-m", "flows.cli", "report", str(root)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=400, env={**os.environ, **secrets, **address}
        )
        assert done.returncode == (2 if address else 0), done.stderr
        assert PLANTED not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PLANTED.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "[bad"])
def test_errors_of_addresses_hide_passwords(address, monkeypatch):
    from tasks.addresses import check_address

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{PLANTED}@{address}")
    with pytest.raises(ClusterError, match="MLFLOW_TRACKING_URI") as caught:
        check_address("MLFLOW_TRACKING_URI")
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc", "a\0b", ".hidden", "", "x" * 65, "a..b"])
def test_study_names_stay_inside(name):
    from nas_core.base.errors import ConfigError
    from nas_core.study.config import parse_config

    with pytest.raises(ConfigError):
        parse_config({"name": name}, "test")


def test_an_opened_study_reads_only_its_own_files(tmp_path):
    """A study.yaml from elsewhere may name paths; they are data to read, and nothing is written there."""
    (tmp_path / "study.yaml").write_text("name: x\nspace: {file: /etc/passwd}\n")
    from nas_core.base.errors import NasError

    with pytest.raises(NasError):
        Study.open(str(tmp_path)).status()


def test_licences_of_what_we_depend_on_are_permissive():
    """Every installed requirement of ours says its licence, and none is strong copyleft."""
    needed = importlib.metadata.requires("mathnas") or []
    names = [re.match(r"[\w.-]+", text)[0] for text in needed if "extra ==" not in text]
    assert len(names) > 10
    for name in names:
        meta = importlib.metadata.metadata(name)
        said = [meta.get("License-Expression"), (meta.get("License") or "").partition("\n")[0]]
        said += [text for text in meta.get_all("Classifier") or [] if text.startswith("License ::")]
        words = " ".join(text for text in said if text)
        assert words, name
        assert not STRONG_COPYLEFT.search(words), (name, words)
