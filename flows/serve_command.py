"""`mathnas serve`: the flows on Prefect's page, for one machine."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from nas_core.errors import ClusterError

SERVER_START_S = 120.0


def serve_flows(root: str, port: int, limit: int) -> None:
    """Serve the study and its stages until interrupted; starts a server where none is configured."""
    with _server(port) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect import serve

        from flows.study import FLOWS, run_study

        named = {"study": run_study, **FLOWS}
        deployments = [
            flow.to_deployment(name=name, parameters={"root": f"{root}/study"}, tags=["mathnas"])
            for name, flow in named.items()
        ]
        print(f"Prefect's page: {url.removesuffix('/api')}/deployments  (Ctrl-C stops)")
        serve(*deployments, limit=limit, print_starting_message=False)


@contextmanager
def _server(port: int) -> Iterator[str]:
    """The API's URL: the configured one, or that of a server started on 127.0.0.1."""
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield configured
        return
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            _, error = process.communicate()
            last = (error.decode().strip().splitlines() or ["it ended at once"])[-1]
            raise ClusterError("Prefect server", last, "a free port", "Choose another with --port.")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise ClusterError("Prefect server", f"no answer in {SERVER_START_S:.0f} s", "an answer")
