"""docker/compose.yaml's services as processes: deployed, triggered by the API as the page does, cancelled, retried."""

import contextlib
import http.server
import json
import os
import threading
import time

import httpx
import psutil
import pytest

from nas_core.records.lease import driver
from nas_core.records.store import Store
from nas_core.study.stages import STAGES
from nas_core.study.study import Study
from tests.cancelling import seconds_to_stop
from tests.conftest import config_of
from tests.services.servers import kill_family, postgres_binaries
from tests.services.topology import PATIENCE_S, Topology

pytestmark = [pytest.mark.services, pytest.mark.skipif(postgres_binaries() is None, reason="needs PostgreSQL")]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LONG = {"kind": "train", "recipe": {"epochs": 10_000, "batch_size": 64}}


@pytest.fixture(scope="module")
def webhook():
    """A server that keeps what it is told; its address and the messages."""
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/told", told
    server.shutdown()


@pytest.fixture(scope="module")
def topology(tmp_path_factory, webhook):
    folder = tmp_path_factory.mktemp("topology")
    for parent in [folder, *list(folder.parents)[:3]]:
        os.chmod(parent, 0o755)  # the database's own user must get through
    with Topology(folder, webhook[0]) as up:
        for name, value in up.environment("worker").items():
            if name.startswith("AWS_"):
                os.environ[name] = value
        yield up
        for name in up.environment("worker"):
            if name.startswith("AWS_"):
                os.environ.pop(name)


def trigger(api, config, root, **parameters):
    """A run of the deployment `study`, as the page's form makes one; its id."""
    deployment = api.get("/deployments/name/study/study").json()
    parameters = {"config": config.model_dump(mode="json"), "root": root, **parameters}
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    answer = api.post(f"/deployments/{deployment['id']}/create_flow_run", json=body)
    assert answer.is_success, answer.text
    return answer.json()["id"]


def state_of(api, run_id):
    return api.get(f"/flow_runs/{run_id}").json()["state"]


def wait_for_state(api, run_id, *types):
    deadline = time.monotonic() + PATIENCE_S
    while (state := state_of(api, run_id))["type"] not in types:
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    return state


def set_state(api, run_id, **state):
    answer = api.post(f"/flow_runs/{run_id}/set_state", json={"state": state})
    assert answer.is_success, answer.text


def training(topology):
    """Process ids of Ray's workers that train a network."""
    found = []
    for one in psutil.Process(topology.processes["ray-worker"].pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(one.cmdline()).startswith("ray::_run_once"):
                found.append(one.pid)
    return found


def wait_for_training(topology, api, run_id):
    deadline = time.monotonic() + PATIENCE_S
    while not training(topology):
        assert time.monotonic() < deadline, state_of(api, run_id)
        time.sleep(0.2)


def test_every_stage_is_deployed(topology):
    with topology.prefect() as api:
        names = {row["name"] for row in api.post("/deployments/filter", json={}).json()}
        automations = {row["name"] for row in api.post("/automations/filter", json={}).json()}
    assert names == {"study", "design", *STAGES}
    assert automations == {"mathnas dead runs", "mathnas study ended"}


def test_servers_ask_for_a_password(topology):
    assert httpx.post(f"{topology.prefect_url}/deployments/filter", json={}).status_code == 401
    assert httpx.get(f"{topology.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1").status_code == 401
    stranger = {"Host": "evil.example"}
    assert httpx.get(f"{topology.mlflow_url}/api/2.0/mlflow/experiments/search", headers=stranger).status_code == 403


def test_a_study_runs_to_its_report(topology, webhook):
    config, root = config_of(), "s3://mathnas/whole"
    with topology.prefect() as api:
        state = wait_for_state(api, trigger(api, config, root), *ENDED)
        assert state["type"] == "COMPLETED", state
    study = Study.open(root)
    assert {name: stage.state for name, stage in study.status().items()} == dict.fromkeys(STAGES, "done")
    user = ("mathnas", topology.secrets["MLFLOW_ADMIN_PASSWORD"])
    models = httpx.get(f"{topology.mlflow_url}/api/2.0/mlflow/registered-models/search", auth=user).json()
    assert [row["name"] for row in models["registered_models"]] == ["tiny"]
    deadline = time.monotonic() + 60
    while not webhook[1]:
        assert time.monotonic() < deadline, "the webhook was not told"
        time.sleep(0.5)
    assert json.loads(webhook[1][0])["state"] == "Completed"
    for path in study.store.paths():
        content = study.store.read_bytes(path)
        assert not [name for name, secret in topology.secrets.items() if secret.encode() in content], path


def test_cancel_stops_the_work(topology, capsys):
    root = "s3://mathnas/cancelled"
    with topology.prefect() as api:
        run_id = trigger(api, config_of(scorer=LONG), root)
        wait_for_training(topology, api, run_id)
        set_state(api, run_id, type="CANCELLING")
        stopped_s, ended_s = seconds_to_stop(
            lambda: training(topology), lambda: state_of(api, run_id)["type"] == "CANCELLED"
        )
    with capsys.disabled():
        print(f"\ncancelled: work stopped within {stopped_s:.1f} s, the run ended after {ended_s:.1f} s")
    assert driver(Store(root)) is None, "the study was not given back"
    assert Study.open(root).status()["score"].state in ("missing", "partial")


def test_retry_executes_only_what_failed(topology):
    """MLflow is away when the report is due; the page's Retry makes the report and nothing else."""
    config, root = config_of(name="retried"), "s3://mathnas/retried"
    kill_family(topology.processes.pop("mlflow"))
    with topology.prefect() as api:
        run_id = trigger(api, config, root)
        state = wait_for_state(api, run_id, *ENDED)
        assert state["type"] == "FAILED", state
        assert "Nothing is lost" in state["message"]
        before = written(root)
        topology.start("mlflow")
        topology.wait_for(f"{topology.mlflow_url}/health")
        set_state(api, run_id, type="SCHEDULED", name="AwaitingRetry")
        assert wait_for_state(api, run_id, "RUNNING", "COMPLETED")
        state = wait_for_state(api, run_id, *ENDED)
        assert state["type"] == "COMPLETED", state
    assert {name: stage.state for name, stage in Study.open(root).status().items()} == dict.fromkeys(STAGES, "done")
    changed = {path for path, content in written(root).items() if before.get(path) != content}
    assert not [
        path for path in changed if path.startswith(("evaluations", "costs", "selection", "verification", "winner"))
    ]


def written(root):
    store = Store(root)
    return {path: store.read_bytes(path) for path in store.paths()}


def test_a_run_whose_process_died_is_marked_as_crashed(topology):
    """The worker dies with the run, so that nobody reports it; the automation does, after three heartbeats."""
    root = "s3://mathnas/died"
    with topology.prefect() as api:
        run_id = trigger(api, config_of(scorer=LONG), root)
        wait_for_training(topology, api, run_id)
        time.sleep(35)  # one heartbeat at least
        kill_family(topology.processes.pop("worker"))
        state = wait_for_state(api, run_id, *ENDED)
        assert (state["type"], "No heartbeat" in state["message"]) == ("CRASHED", True), state
        topology.start("worker")
