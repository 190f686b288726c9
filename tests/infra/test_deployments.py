"""infra/: what it names exists in the project, and Prefect's own models accept it."""

import asyncio
import importlib
import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import ray
from prefect import Flow
from typer.main import get_command

from flows.cli import app
from nas_core.base.errors import ConfigError
from nas_core.study.config import StudyConfig
from tests.infra.strict_yaml import documents

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
MANIFESTS = sorted([*INFRA.glob("kuberay/*.yaml"), *INFRA.glob("kubernetes/*.yaml")])
NAMED = {(doc["kind"], doc["metadata"]["name"]) for path in MANIFESTS for doc in documents(path)}
HAND_MADE_SECRETS = {  # name -> its keys, as base.yaml says to make them
    name: set(re.findall(r"--from-literal=(\w+)=", options))
    for name, options in re.findall(
        r"kubectl -n mathnas create secret generic ([\w-]+)(.*?)(?=\n#   kubectl|\napiVersion)",
        (INFRA / "kubernetes/base.yaml").read_text(),
        re.DOTALL,
    )
}


def pairs(data, key=None):
    """Every (key, value) in nested data."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield name, value
            yield from pairs(value)
    elif isinstance(data, list):
        for value in data:
            yield from pairs(value)


@pytest.mark.parametrize("path", sorted(INFRA.rglob("*.yaml")), ids=lambda path: str(path.relative_to(INFRA)))
def test_yaml_is_strict(path):
    assert documents(path)


def test_there_is_no_python():
    assert not [*INFRA.rglob("*.py"), *(ROOT / "docker").rglob("*.py")]


# Prefect


@pytest.fixture(scope="module")
def deployments():
    from prefect.cli.deploy._models import PrefectYamlModel

    data = documents(INFRA / "prefect.yaml")[0]
    PrefectYamlModel.model_validate(data)
    return {row["name"]: row for row in data["deployments"]}


def test_the_study_and_every_stage_are_deployed(deployments):
    from flows.study import FLOWS

    assert set(deployments) == {"study", "design", *FLOWS}


def test_entry_points_are_dotted_paths_of_flows(deployments):
    for row in deployments.values():
        assert ":" not in row["entrypoint"]
        module, _, name = row["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow)
        assert row["parameters"].keys() <= flow.parameters.properties.keys()
        flow.validate_parameters(row["parameters"])


def test_runs_look_for_no_directory_of_the_machine_that_deployed():
    """Prefect fills an empty ``pull`` with the directory in which it is asked to deploy."""
    from prefect.deployments.steps.pull import set_working_directory

    pull = documents(INFRA / "prefect.yaml")[0]["pull"]
    assert pull == [{f"prefect.deployments.steps.{set_working_directory.__name__}": {"directory": "."}}]
    assert set_working_directory(".") == {"directory": os.getcwd()}


def test_runs_wait_for_their_turn_and_no_schedule_is_active(deployments):
    for row in deployments.values():
        assert row["concurrency_limit"]["collision_strategy"] == "ENQUEUE"
        assert row["concurrency_limit"]["limit"] >= 1
        assert "mathnas" in row["tags"]
        assert all(schedule["active"] is False for schedule in row["schedules"])
    assert deployments["study"]["schedules"]


def test_the_weekly_schedule_makes_runs_once_it_is_switched_on(deployments, api):
    """Prefect's scheduler is a part of its server that fails without a word where it does not fit what is installed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    (weekly,) = deployments["study"]["schedules"]
    schedule = {"cron": weekly["cron"], "timezone": weekly["timezone"]}
    switched_on = DeploymentScheduleCreate.model_validate({"schedule": schedule, "active": True})
    with get_client(sync_client=True) as server:
        flow_id = server.create_flow_from_name("scheduled")
        made = server.create_deployment(flow_id, "weekly", schedules=[switched_on])
        of_it = DeploymentFilter(id=DeploymentFilterId(any_=[made]))
        runs, deadline = [], time.monotonic() + 60
        while not runs and time.monotonic() < deadline:
            time.sleep(0.5)
            runs = server.read_flow_runs(deployment_filter=of_it)
        server.delete_flow(flow_id)
    assert {run.state.type for run in runs} == {"SCHEDULED"}


@pytest.mark.parametrize("page", ["infra/README.md", "infra/prefect.yaml", "docker/compose.yaml"])
def test_a_pool_is_ours_even_where_a_worker_was_first(page):
    """A worker makes the pool that it does not find, by Prefect's own template."""
    commands = re.findall(r"prefect work-pool create .*", (ROOT / page).read_text())
    assert commands
    assert [line for line in commands if "--overwrite" not in line] == []


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_work_pools_are_templates_that_fill_themselves(kind):
    pool = json.loads((INFRA / f"work-pools/{kind}.json").read_text())
    variables = pool["variables"]["properties"]
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(pool["job_configuration"])))
    assert used <= set(variables)
    assert "prefect_flows_heartbeat_frequency" in {name.lower() for name in variables["env"]["default"]}


def test_a_container_of_the_docker_worker_knows_what_composes_worker_knows(monkeypatch):
    """Addresses in the template, which Prefect stores; passwords from the worker's own environment."""
    from prefect.workers.base import BaseJobConfiguration

    compose = documents(ROOT / "docker/compose.yaml")[0]
    known = {name: value for name, value in compose["x-clients"].items() if not name.startswith("MATHNAS_")}
    for secret in re.findall(r"\$\{(\w+):\?", " ".join(known.values())):
        monkeypatch.setenv(secret, f"the {secret}")
        known = {name: re.sub(rf"\$\{{{secret}:.*}}", f"the {secret}", value) for name, value in known.items()}
    template = json.loads((INFRA / "work-pools/docker.json").read_text())
    made = asyncio.run(BaseJobConfiguration.from_template_and_values(template, {}, client=object()))
    assert known.items() <= made.env.items()
    defaults = {name: about.get("default") for name, about in template["variables"]["properties"].items()}
    assert defaults["networks"] == [f"{compose['name']}_default"]
    assert defaults["volumes"] == [compose["x-data"].replace("${MATHNAS_IMAGES:-./data}", "./docker/data")]


def test_automations_are_as_prefect_knows_them():
    from flows.automations import parse_automation

    for path in sorted(INFRA.glob("automations/*.yaml")):
        assert parse_automation(path.read_text(), str(path), UUID(int=0)).enabled


@pytest.mark.parametrize("text", [b"[", b"words", b"name: x\nactions: 3", b"\xff\xfe"])
def test_a_wrong_automation_is_named_before_a_server_is_asked(tmp_path, text):
    from flows.automations import make_automations

    (tmp_path / "wrong.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=r"wrong\.yaml"):
        make_automations(tmp_path)


@pytest.mark.parametrize("page", ["README.md", "infra/README.md"])
def test_a_run_into_object_storage_names_an_mlflow(page):
    """The embedded one is a file in the study's root, which has to be a local folder then."""
    runs = [line for line in (ROOT / page).read_text().splitlines() if re.search(r"mathnas run .*--root s3://", line)]
    assert runs
    assert [line for line in runs if "MLFLOW_TRACKING_URI=" not in line] == []


def test_automations_are_made_once_and_then_changed_in_place(api, monkeypatch):
    from flows.automations import make_automations

    monkeypatch.setenv("MATHNAS_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    known = []
    for _ in range(2):
        names = make_automations(INFRA / "automations")
        rows = httpx.post(f"{os.environ['PREFECT_API_URL']}/automations/filter", json={}).json()
        known.append({row["name"]: row["id"] for row in rows})
    assert known[0] == known[1]
    assert sorted(known[0]) == sorted(names) == ["mathnas dead runs", "mathnas study ended"]


# Kubernetes


PAGE = (INFRA / "README.md").read_text()
STEPS = re.search(r"Kubernetes, with the.*?```sh\n(.*?)\n```", PAGE, re.DOTALL)[1].split("\n")


def first(text):
    """The number of the first of the README's steps that holds the text."""
    return next(number for number, line in enumerate(STEPS) if text in line)


def test_the_steps_are_in_an_order_that_works():
    """The namespace is there before the secrets, the images before the pods, the address before it is asked."""
    assert first("docker push") < first("apply -f infra/kubernetes/base.yaml") < first("apply -f infra/kubernetes/ ")
    assert first("port-forward") < first("export PREFECT_API_URL=") < first("prefect work-pool create")
    assert STEPS[first("port-forward")].endswith("&")  # it would hold the shell
    assert set(re.findall(r"(PREFECT_\w+)=", STEPS[first("export")])) == {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING"}


def test_every_image_is_one_that_is_pushed(tmp_path):
    for path in [*MANIFESTS, INFRA / "work-pools/kubernetes.json"]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    subprocess.run(["sh", "-c", STEPS[first("sed -i")]], check=True, cwd=tmp_path)
    used = set()
    for path in tmp_path.rglob("*.*"):
        found = [value for doc in documents(path) for key, value in pairs(doc) if key == "image"]
        used |= {value.get("default") if isinstance(value, dict) else value for value in found} - {"{{ image }}"}
    assert used == set(re.findall(r"docker push (\S+)", PAGE))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_secrets_accounts_and_maps_exist(path):
    for doc in documents(path):
        for key, value in pairs(doc):
            if key in ("secretKeyRef", "secretRef"):
                assert value["name"] in HAND_MADE_SECRETS
            if key == "secretName":
                assert value in HAND_MADE_SECRETS
            if key in ("configMapRef", "configMap", "configMapKeyRef"):
                assert ("ConfigMap", value["name"]) in NAMED or value["name"] == "mathnas-study"
            if key == "claimName":
                assert ("PersistentVolumeClaim", value) in NAMED
            if key == "serviceAccountName":
                assert ("ServiceAccount", value) in NAMED
        assert doc["kind"] == "Namespace" or doc["metadata"]["namespace"] == "mathnas"


def test_the_store_is_named_in_one_place():
    """Whatever has the store's password takes its address and region from the one map of addresses."""
    addresses = INFRA / "kubernetes/base.yaml"
    data = next(doc["data"] for doc in documents(addresses) if doc["metadata"]["name"] == "mathnas-addresses")
    for path in MANIFESTS:
        for doc in documents(path):
            for key, value in pairs(doc):
                given = {row["name"]: row.get("valueFrom") for row in value} if key == "env" and value else {}
                for name in ("AWS_REGION", "AWS_ENDPOINT_URL") if "AWS_ACCESS_KEY_ID" in given else ():
                    source = (given.get(name) or given["AWS_DEFAULT_REGION"])["configMapKeyRef"]
                    assert (source["name"], source["key"]) == ("mathnas-addresses", name)
                    assert name in data or (source["optional"] and f"# {name}: " in addresses.read_text())


def test_every_key_of_a_hand_made_secret_is_said_how_to_make():
    for path in MANIFESTS:
        for doc in documents(path):
            for key, value in pairs(doc):
                if key == "secretKeyRef":
                    assert value["key"] in HAND_MADE_SECRETS[value["name"]], value
    assert HAND_MADE_SECRETS["mathnas-ray"] == {"auth_token"}  # the key that KubeRay reads


def test_the_worker_keeps_the_password_in_its_secret_and_to_its_namespace():
    worker = documents(INFRA / "kubernetes/worker.yaml")[0]["spec"]["template"]["spec"]["containers"][0]
    given = {row["name"].removeprefix("PREFECT_INTEGRATIONS_KUBERNETES_"): row.get("value") for row in worker["env"]}
    secret = given["WORKER_API_AUTH_STRING_SECRET_NAME"]
    assert given["WORKER_API_AUTH_STRING_SECRET_KEY"] in HAND_MADE_SECRETS[secret]
    assert given["OBSERVER_NAMESPACES"] == "mathnas"


def test_a_flow_pod_knows_what_a_flow_run_of_compose_knows():
    """As far as it is for running and not for deploying, and Amazon's own S3 needs no address."""
    template = json.loads((INFRA / "work-pools/kubernetes.json").read_text())["job_configuration"]["job_manifest"]
    sources = template["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    maps = {doc["metadata"]["name"]: doc for doc in documents(INFRA / "kubernetes/base.yaml") if "data" in doc}
    known = set()
    for source in sources:
        known |= set(maps[source["configMapRef"]["name"]]["data"] if "configMapRef" in source else ())
        known |= HAND_MADE_SECRETS[source["secretRef"]["name"]] if "secretRef" in source else set()
    clients = documents(ROOT / "docker/compose.yaml")[0]["x-clients"]
    assert set(clients) - {"MATHNAS_ROOT", "MATHNAS_WORK_POOL", "AWS_ENDPOINT_URL"} <= known


def pods(doc):
    """The spec of every pod that the document has made: what it describes, and what KubeRay adds to that."""
    found = [value for key, value in pairs(doc) if key == "spec" and "containers" in value]
    for _, value in pairs(doc):
        if isinstance(value, dict) and value.get("enableInTreeAutoscaling"):
            head = value["headGroupSpec"]["template"]["spec"]
            autoscaler = {"name": "autoscaler", "image": head["containers"][0]["image"], **value["autoscalerOptions"]}
            found.append({**head, "containers": [autoscaler]})
    return found


@pytest.mark.parametrize("path", [*MANIFESTS, INFRA / "work-pools/kubernetes.json"], ids=lambda path: path.stem)
def test_pods_are_as_the_namespace_demands(path):
    """Its Pod Security level, `restricted`, refuses every other pod; memory is bounded, images are ours."""
    namespace = documents(INFRA / "kubernetes/base.yaml")[0]
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for doc in documents(path):
        for pod in pods(doc):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] == 10001
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for box in pod["containers"] + pod.get("initContainers", []):
                assert box["securityContext"]["allowPrivilegeEscalation"] is False, box["name"]
                assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
                assert "memory" in box["resources"]["limits"]
                assert re.fullmatch(r"mathnas:(cpu|cuda)|{{ image }}", box["image"])


def test_volumes_are_mounted_from_what_is_there():
    for path in MANIFESTS:
        for doc in documents(path):
            for key, value in pairs(doc):
                if key == "spec" and isinstance(value, dict) and "containers" in value:
                    volumes = {volume["name"] for volume in value.get("volumes", [])}
                    mounted = {mount["name"] for box in value["containers"] for mount in box.get("volumeMounts", [])}
                    assert mounted == volumes


def test_ray_is_the_version_that_is_tested_and_asks_for_a_token():
    for path in sorted(INFRA.glob("kuberay/*.yaml")):
        doc = documents(path)[0]
        spec = doc["spec"]["rayClusterSpec"] if doc["kind"] == "RayJob" else doc["spec"]
        assert spec["rayVersion"] == ray.__version__
        assert spec["authOptions"]["mode"] == "token"
        assert spec["enableInTreeAutoscaling"] is True
        groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
        gpu = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert gpu["nvidia.com/gpu"] == "1"
        for group in groups.values():
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        # the head has no CPUs, and a study with every setting at its default does not wait for a cluster to grow
        assert StudyConfig().cluster.max_workers == 0
        assert groups["cpu"]["minReplicas"] >= 1
        resources = groups["target-device"]["rayStartParams"]["resources"]
        assert json.loads(json.loads(resources)) == {"target_device": 1}


def test_the_job_and_the_cluster_are_alike():
    cluster = documents(INFRA / "kuberay/raycluster.yaml")[0]["spec"]
    job = documents(INFRA / "kuberay/rayjob.yaml")[0]["spec"]["rayClusterSpec"]
    assert cluster["workerGroupSpecs"] == job["workerGroupSpecs"]
    assert cluster["autoscalerOptions"] == job["autoscalerOptions"]


def test_rays_nodes_know_the_tracking_server_that_a_teacher_may_be_of():
    wanted = {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    cluster = documents(INFRA / "kuberay/raycluster.yaml")[0]["spec"]
    for group in cluster["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        assert wanted <= {each["name"] for each in container["env"]}
    assert wanted <= documents(ROOT / "docker/compose.yaml")[0]["x-ray"]["environment"].keys()


def test_every_pod_of_ray_may_reach_its_head():
    """The job's submitter too: KubeRay's own carries no label that a network policy lets through."""
    assert "submitterPodTemplate" in documents(INFRA / "kuberay/rayjob.yaml")[0]["spec"]
    for path in sorted(INFRA.glob("kuberay/*.yaml")):
        for key, value in pairs(documents(path)):
            if key in ("template", "submitterPodTemplate"):
                assert value["metadata"]["labels"]["app.kubernetes.io/component"] == "ray"


def test_the_jobs_command_is_one_of_ours():
    words = shlex.split(documents(INFRA / "kuberay/rayjob.yaml")[0]["spec"]["entrypoint"])
    assert words[0] == "mathnas"
    command = get_command(app).commands[words[1]]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_addresses_are_those_of_the_services():
    base = {doc["kind"]: doc for doc in documents(INFRA / "kubernetes/base.yaml")}
    services = {
        doc["metadata"]["name"]: doc for path in MANIFESTS for doc in documents(path) if doc["kind"] == "Service"
    }
    ports = {name: service["spec"]["ports"][0]["port"] for name, service in services.items()}
    ports |= {"mathnas-head-svc": 10001}  # KubeRay's, for the cluster named mathnas
    for variable, value in base["ConfigMap"]["data"].items():
        found = re.match(r"\w+://([\w-]+)\.mathnas\.svc:(\d+)", value)
        if found:
            assert ports[found[1]] == int(found[2]), variable


def test_only_listed_pods_may_talk():
    policies = documents(INFRA / "kubernetes/network-policies.yaml")
    everything = [doc for doc in policies if doc["spec"]["podSelector"] == {}]
    assert [doc["spec"]["policyTypes"] for doc in everything] == [["Ingress"]]
    assert "ingress" not in everything[0]["spec"]
    guarded = {doc["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component") for doc in policies}
    assert {"prefect", "mlflow", "ray"} <= guarded
    out = next(doc for doc in policies if doc["metadata"]["name"] == "from-ray")["spec"]["egress"]
    open_to_all = {port["port"] for rule in out if "to" not in rule for port in rule["ports"]}
    assert open_to_all == {53, 443, 6443}  # names; the store and Kubernetes, whose own port is 6443


@pytest.mark.situations
def test_the_form_has_a_form_for_every_kind():
    """What Prefect's page makes of the study's schema: it tells alternatives by a value's keys."""
    from flows.study import run_study
    from nas_core.base.registry import OURS
    from nas_core.costs import PROFILERS
    from nas_core.families import FAMILIES
    from nas_core.scoring import SCORERS
    from nas_core.searchers import SEARCHERS
    from nas_core.workloads import WORKLOADS

    definitions = run_study.parameters.definitions
    study = definitions["StudyConfig"]["properties"]
    for section, registry in {"space": FAMILIES, "data": WORKLOADS, "scorer": SCORERS, "searcher": SEARCHERS}.items():
        *forms, _ = study[section]["anyOf"]  # the last is for what plug-ins bring
        for name in (name for name in registry if registry.origin(name) is OURS):
            (form,) = [each for each in forms if name in kinds_of(each)]
            shown = {key: field.get("default", "given") for key, field in form["properties"].items()}
            assert forms[chosen_by_the_page({**shown, "kind": name}, forms)] is form
    profilers = definitions["ProfileConfig"]["properties"]["profilers"]["properties"]
    assert {name for name in PROFILERS if PROFILERS.origin(name) is OURS} <= set(profilers)
    assert all(form["description"] for form in profilers.values())


def kinds_of(form):
    kind = form["properties"]["kind"]
    return kind.get("enum") or [kind["const"]]


def chosen_by_the_page(value, forms):
    """The alternative that has the most keys of the value; of several the first (prefect-ui-library's AnyOf)."""
    shared = [len(value.keys() & form["properties"].keys()) for form in forms]
    return shared.index(max(shared))
