"""docker/: compose and the Dockerfile name only what exists, publish to 127.0.0.1 only, hold no secret."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.infra.strict_yaml import documents

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = documents(DOCKER / "compose.yaml")[0]
SERVICES = COMPOSE["services"]
TEXT = (DOCKER / "compose.yaml").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def test_every_variable_is_in_the_example_or_has_a_default():
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    optional = set(re.findall(r"\$\{(\w+):-", TEXT))
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    offered = set(re.findall(r"^(\w+)=", (DOCKER / "env.example").read_text(), re.MULTILINE))
    assert required == offered
    assert used == required | optional


def test_no_password_is_written_down():
    filled = [line for line in (DOCKER / "env.example").read_text().splitlines() if re.match(r"\w+=\s*[^\s#]", line)]
    assert filled == []
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH_STRING", name):
                assert ":?" in value, name


def test_nothing_is_published_beyond_this_machine():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_depend_on_services_and_their_checks():
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]


def test_volumes_networks_and_mounted_files_exist():
    for service in SERVICES.values():
        for volume in set(service.get("volumes", [])) - {COMPOSE["x-data"]}:
            source = volume.split(":")[0]
            assert (DOCKER / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]
    assert (DOCKER / SERVICES["ray-head"]["build"]["context"] / SERVICES["ray-head"]["build"]["dockerfile"]).is_file()


def test_a_run_sees_the_images_that_the_nodes_see():
    assert COMPOSE["x-data"].endswith(":/data:ro")
    for name in ("ray-head", "ray-worker", "worker"):
        assert COMPOSE["x-data"] in SERVICES[name]["volumes"], name


def test_addresses_are_services_that_listen_there():
    listens = {"prefect": 4200, "mlflow": 5000, "ray-head": 10001, "s3": 7070, "postgres": 5432}
    for service in SERVICES.values():
        for value in service.get("environment", {}).values():
            for host, port in re.findall(r"(?:://|@)([a-z][\w-]*):(\d+)", str(value)):
                if host in SERVICES:
                    assert listens[host] == int(port), value


def test_its_databases_are_made():
    made = set(re.findall(r"CREATE DATABASE (\w+)", (DOCKER / "postgres/databases.sql").read_text()))
    assert set(re.findall(r"@postgres:5432/(\w+)", TEXT)) == made


def test_paths_in_commands_exist():
    for path in re.findall(r"infra/[\w./-]+", TEXT):
        assert (ROOT / path).exists(), path


def test_mlflow_knows_its_options():
    from mlflow.cli import server
    from mlflow.server.auth.config import read_auth_config

    options = {name for parameter in server.params for name in parameter.opts}
    given = {word.partition("=")[0] for word in SERVICES["mlflow"]["command"] if word.startswith("--")}
    assert given <= options
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(DOCKER / "mlflow-auth.ini")
    try:
        config = read_auth_config()
    finally:
        del os.environ["MLFLOW_AUTH_CONFIG_PATH"]
    assert config.admin_password is None
    assert config.default_permission == "NO_PERMISSIONS"


def test_kubernetes_has_the_same_mlflow_users_file():
    maps = [doc for doc in documents(ROOT / "infra/kubernetes/mlflow.yaml") if doc["kind"] == "ConfigMap"]

    def lines(text):
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    assert lines(maps[0]["data"]["mlflow-auth.ini"]) == lines((DOCKER / "mlflow-auth.ini").read_text())


def test_the_image_is_pinned_and_runs_as_nobody_special():
    assert DOCKERFILE.count("pip install -c constraints.txt") == DOCKERFILE.count("pip install")
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    assert len(stages) == 3
    assert re.search(r"^USER 10001:10001$", stages[-1], re.MULTILINE)
    assert not re.search(r"PASSWORD|TOKEN|SECRET|:latest", DOCKERFILE)


# the CUDA builds that https://download.pytorch.org/whl/ has of a torch: look there when the pinned one changes
CUDA_BUILDS = {"torch==2.13.0": {"cu126", "cu129", "cu130"}}


def test_the_cuda_builds_named_are_there():
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    named = re.findall(r"\bcu\d+\b", DOCKERFILE + (ROOT / "infra/README.md").read_text())
    assert named
    assert set(named) <= CUDA_BUILDS[pinned]


def test_the_image_copies_what_exists_and_is_not_ignored():
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(copied) == set(allowed)
    assert all((ROOT / name).exists() for name in copied)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {
    canonicalize_name(line.partition("==")[0])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
}


def test_pinned_packages_of_the_image_are_in_the_constraints():
    extras = PROJECT["optional-dependencies"]
    asked = [
        *PROJECT["dependencies"],
        *(text for name in ("report", "networks", "run", "cluster") for text in extras[name]),
    ]
    for text in asked:
        assert canonicalize_name(Requirement(text).name) in {*PINNED, "mathnas"}, text


def test_ray_brings_its_client_and_its_dashboard():
    """Without them `ray start --head` opens no port 10001 and answers no probe, and says nothing about it."""
    asked = next(
        wanted for text in PROJECT["optional-dependencies"]["run"] if (wanted := Requirement(text)).name == "ray"
    )
    brought = {
        canonicalize_name(wanted.name)
        for text in importlib.metadata.requires("ray")
        if (wanted := Requirement(text)).marker and any(wanted.marker.evaluate({"extra": one}) for one in asked.extras)
    }
    assert {"grpcio", "aiohttp-cors", "opencensus"} <= brought <= PINNED


def compose():
    """Compose's command: the plugin of `docker`, or the program of its own; None where there is neither."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    return None


@pytest.mark.skipif(compose() is None, reason="needs docker compose")
def test_compose_itself_accepts_the_file():
    variables = dict.fromkeys(re.findall(r"\$\{(\w+):\?", TEXT), "x" * 16)
    done = subprocess.run(
        [*compose(), "-f", str(DOCKER / "compose.yaml"), "config"],
        capture_output=True, text=True, timeout=60, env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() >= {"postgres", "prefect", "mlflow", "ray-head"}


@pytest.mark.skipif(compose() is None, reason="needs docker compose")
def test_compose_refuses_to_start_without_a_password():
    done = subprocess.run(
        [*compose(), "-f", str(DOCKER / "compose.yaml"), "--env-file", str(DOCKER / "env.example"), "config"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is missing a value: set it in docker/.env" in done.stderr
