"""docker/compose.yaml without Docker: its services' own commands and variables as processes on 127.0.0.1.

Only what a container would bring is replaced: host names and ports by
127.0.0.1 and free ones, the image's folders by folders of the test, and the
two foreign images by Debian's PostgreSQL and moto's S3 server.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import yaml

from flows.prefect_server import _end_with_parent, _free_port
from tests.services.s3 import S3Server
from tests.services.servers import postgres_server

ROOT = Path(__file__).parents[2]
PORTS = (4200, 5000, 6379, 8080, 10001)  # of our own services
PATIENCE_S = 300


class Topology:
    """Use as a context manager; ``secrets`` are the variables of docker/.env, made up for this run."""

    def __init__(self, folder: Path, webhook_url: str = "") -> None:
        self.folder, self.webhook_url = folder, webhook_url
        self.port = {port: _free_port() for port in PORTS}
        self.processes: dict[str, subprocess.Popen] = {}
        self.secrets = {
            line.partition("=")[0]: os.urandom(12).hex()
            for line in (ROOT / "docker/env.example").read_text().splitlines()
            if re.match(r"\w+=", line)
        }
        self.secrets["PREFECT_AUTH"] = f"admin:{self.secrets['PREFECT_AUTH']}"

    def __enter__(self) -> "Topology":
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(
                postgres_server(self.folder, ["prefect", "mlflow"], self.secrets["POSTGRES_PASSWORD"])
            )
            self.s3 = stack.enter_context(S3Server())
            self.port |= {5432: int(address.rpartition(":")[2]), 7070: self.s3.port}
            self.services = self._services()
            stack.callback(self.close)
            self.run("bucket")
            for name in ("prefect", "mlflow", "ray-head"):
                self.start(name)
            self.wait_for(self.prefect_url + "/health")
            self.wait_for(f"http://127.0.0.1:{self.port[5000]}/health")
            self.wait_for_port(self.port[6379])
            self.start("ray-worker")
            shutil.copytree(ROOT / "infra", self.folder / "deployer/infra")
            self.run("deploy")
            shutil.rmtree(self.folder / "deployer")  # no run may need a directory of the machine that deployed
            self.start("worker")
            self.wait_for(f"http://127.0.0.1:{self.port[8080]}/health")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.port[4200]}/api"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.port[5000]}"

    def prefect(self) -> httpx.Client:
        """A client of Prefect's API that knows the password."""
        user, _, password = self.secrets["PREFECT_AUTH"].partition(":")
        return httpx.Client(base_url=self.prefect_url, auth=(user, password), timeout=60)

    def _services(self) -> dict[str, dict]:
        text = (ROOT / "docker/compose.yaml").read_text()
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: self.secrets[found[1]], text)
        text = text.replace("${MATHNAS_WEBHOOK_URL:-}", self.webhook_url)
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        text = re.sub(r"\b(postgres|prefect|mlflow|ray-head|s3):(\d+)", r"127.0.0.1:\2", text)
        for given, free in self.port.items():
            text = re.sub(rf"\b{given}\b", str(free), text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        text = text.replace("/opt/mathnas", str(self.folder / "deployer")).replace("/home/mathnas", str(self.folder))
        users = self.folder / "mlflow-auth.ini"
        users.write_text((ROOT / "docker/mlflow-auth.ini").read_text().replace("/home/mathnas", str(self.folder)))
        return yaml.safe_load(
            text.replace("=/mlflow-auth.ini", f"={users}").replace(": /mlflow-auth.ini", f": {users}")
        )["services"]

    def environment(self, name: str) -> dict[str, str]:
        """What the service's processes see: compose's variables and nothing of this machine's set-up."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        given = {key: str(value) for key, value in self.services[name].get("environment", {}).items()}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PREFECT_HOME": str(self.folder / f"{name}-home"),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.port[8080]),
            "AWS_EC2_METADATA_DISABLED": "true",
            "DO_NOT_TRACK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
            **given,
        }

    def command(self, name: str) -> list[str]:
        command = [str(word) for word in self.services[name]["command"]]
        if command[:2] == ["ray", "start"]:  # containers have an address each; here all is one machine
            command += ["--node-ip-address=127.0.0.1"]
            if "--head" in command:
                command += [f"--ray-client-server-port={self.port[10001]}"]
        return command

    def start(self, name: str) -> subprocess.Popen:
        self.processes[name] = subprocess.Popen(
            self.command(name),
            env=self.environment(name),
            cwd=self.folder,
            stdout=(self.folder / f"{name}.log").open("a"),
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        )
        return self.processes[name]

    def run(self, name: str) -> str:
        """A service that ends; what it printed."""
        done = subprocess.run(
            self.command(name),
            env=self.environment(name),
            cwd=self.services[name].get("working_dir", self.folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{name}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def wait_for(self, url: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2).is_success:
                    return
            self._still_up(deadline, url)

    def wait_for_port(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            self._still_up(deadline, f"port {port}")

    def _still_up(self, deadline: float, what: str) -> None:
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended:\n{(self.folder / f'{name}.log').read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"no answer from {what}"
        time.sleep(0.3)

    def close(self) -> None:
        """End every process that was started here, and theirs."""
        families = []
        for process in reversed(self.processes.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                families += [*psutil.Process(process.pid).children(recursive=True)]
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        for one in [*families, *self.processes.values()]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.kill()
