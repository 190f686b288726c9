"""Prefect's page in headless Chromium: fill the form, run a study, watch it, look at what it leaves.

Screenshots are kept under tests/output/browser/, ignored by git.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from flows.prefect_server import _free_port
from nas_core.records.lease import driver
from nas_core.records.store import Store
from nas_core.study.study import Study
from tests.cancelling import seconds_to_stop
from tests.conftest import config_of

playwright = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
SCREENSHOTS = Path(__file__).parents[1] / "output/browser"
LIMIT = "params<=1.9 M"
PATIENCE_S = 500


class Served(NamedTuple):
    address: str
    folder: Path
    pid: int


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`mathnas serve` on a free port; the API's address and the folder of its studies."""
    port, folder = _free_port(), tmp_path_factory.mktemp("served")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", "--root", str(folder), "--port", str(port)],
        env={**os.environ, "PREFECT_API_URL": ""},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    while "study" not in names_of_deployments(address):
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(1)
    yield Served(address, folder, process.pid)
    process.terminate()
    process.wait(timeout=60)


def names_of_deployments(address):
    try:
        return {row["name"]: row for row in httpx.post(f"{address}/api/deployments/filter", json={}).json()}
    except (httpx.HTTPError, ValueError, TypeError):
        return {}


@pytest.fixture(scope="module")
def page():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


def shoot(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1500)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def test_a_study_is_triggered_watched_and_looked_at(served, page, tabular_config):
    address, folder, _ = served
    deployment = names_of_deployments(address)["study"]
    start_from(address, deployment, tabular_config, folder)
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Limits", exact=False).first.wait_for()
    shoot(page, "1-form")
    fill(page, "params<=", LIMIT)
    shoot(page, "2-limit-changed")
    submit(page)
    run = newest_run(address)
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    shoot(page, "3-running")
    final = wait_for_end(address, run["id"])
    assert final["state"]["type"] == "COMPLETED", final["state"]
    shoot(page, "4-finished")
    assert Study.open(str(folder / "study")).config.select.limits == [LIMIT]
    page.goto(f"{address}/runs/flow-run/{run['id']}?tab=Logs")
    page.get_by_text("verify: winner", exact=False).first.wait_for()
    shoot(page, "4-log")
    page.goto(f"{address}/runs/flow-run/{run['id']}?tab=Artifacts")
    shoot(page, "5-artifacts")
    look_at_artifacts(address, page)


def test_a_wrong_value_is_refused_in_the_form(served, page, tabular_config):
    address, folder, _ = served
    deployment = names_of_deployments(address)["study"]
    start_from(address, deployment, tabular_config, folder)
    runs = num_runs(address)
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    fill(page, "params<=", "params<=5 furlongs")
    submit(page)
    complaint = page.get_by_text("does not match", exact=False).first
    complaint.wait_for()
    complaint.scroll_into_view_if_needed()
    shoot(page, "8-wrong-value")
    assert num_runs(address) == runs


@pytest.mark.situations
@pytest.mark.slow
def test_every_scorer_is_a_form_like_the_rest(served, page, tabular_config):
    address, folder, _ = served
    deployment = names_of_deployments(address)["study"]
    start_from(address, deployment, tabular_config, folder)
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    column = page.get_by_text("Column of the metric.", exact=False)  # of the table's form: the value's kind is shown
    column.first.wait_for()
    for kind, setting in (("supernet", "Random paths"), ("train", "Recipe"), ("tabular", "Higher is better")):
        page.get_by_text(kind, exact=True).first.click()
        page.get_by_text(setting, exact=False).first.wait_for()
        shoot(page, f"16-scorer-{kind}")
    assert page.locator(".cm-editor").count() <= 2, "a section is a text in JSON"  # resources of a cluster are texts


def test_a_study_that_trains_its_winner_leaves_links(served, page):
    address, folder, _ = served
    run_id = trigger(address, config_of(), folder / "whole", until="report")
    assert wait_for_end(address, run_id)["state"]["type"] == "COMPLETED"
    artifacts = {row["key"]: row for row in httpx.post(f"{address}/api/artifacts/filter", json={}, timeout=60).json()}
    assert {"tiny-train", "tiny-train-figures", "tiny-report-link", "tiny-links"} <= artifacts.keys()
    page.goto(f"{address}/artifacts/artifact/{artifacts['tiny-train']['id']}")
    page.get_by_text("winner").first.wait_for()
    shoot(page, "9-training-table")
    page.goto(f"{address}/artifacts/artifact/{artifacts['tiny-links']['id']}")
    page.get_by_text("report.html", exact=False).first.wait_for()
    shoot(page, "10-links")


def test_cancel_stops_the_work(served, page, capsys):
    address, folder, _ = served
    recipe = {"epochs": 10_000, "batch_size": 64}
    run_id = trigger(address, config_of(scorer={"kind": "train", "recipe": recipe}), folder / "cancelled")
    wait_until(lambda: training(served), "nothing is trained")
    page.goto(f"{address}/runs/flow-run/{run_id}")
    page.get_by_role("button", name="Cancel").click()
    shoot(page, "11-cancel")
    page.get_by_role("button", name="Confirm").click()
    stopped_s, ended_s = seconds_to_stop(
        lambda: training(served), lambda: run_of(address, run_id)["state"]["type"] == "CANCELLED"
    )
    with capsys.disabled():
        print(f"\ncancelled on the page: work stopped within {stopped_s:.1f} s, the run ended after {ended_s:.1f} s")
    assert driver(Store(folder / "cancelled")) is None
    page.reload()
    shoot(page, "12-cancelled")


def test_retry_executes_only_what_failed(served, page, tabular_config):
    """Something stands where the selection belongs; once it is gone, the page's Retry selects and evaluates nothing."""
    address, folder, _ = served
    root = folder / "retried"
    (root / "selection.json" / "in the way").mkdir(parents=True)
    run_id = trigger(address, tabular_config, root, until="select")
    assert wait_for_end(address, run_id)["state"]["type"] == "FAILED"
    parts = set(root.glob("evaluations/*/*/*.parquet"))
    shutil.rmtree(root / "selection.json")
    page.goto(f"{address}/runs/flow-run/{run_id}")
    shoot(page, "13-failed")
    page.get_by_role("button", name="Retry").click()
    shoot(page, "14-retry")
    page.get_by_role("button", name=re.compile("Retry|Confirm")).last.click()
    wait_until(lambda: Study.open(str(root)).status()["select"].state == "done", "nothing is selected")
    assert wait_for_end(address, run_id)["state"]["type"] == "COMPLETED"
    assert parts
    assert set(root.glob("evaluations/*/*/*.parquet")) == parts
    page.reload()
    shoot(page, "15-retried")


def trigger(address, config, root, **parameters):
    """A run of the deployment `study`, as the form makes one; its id."""
    deployment = names_of_deployments(address)["study"]
    parameters = {"config": config.model_dump(mode="json"), "root": str(root), **parameters}
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return asked_again("POST", f"{address}/api/deployments/{deployment['id']}/create_flow_run", body).json()["id"]


def asked_again(method, url, body):
    """A server on SQLite that has just started may be too busy to answer; Prefect's own client asks again, too."""
    deadline = time.monotonic() + 60
    while not (answer := httpx.request(method, url, json=body, timeout=60)).is_success:
        assert time.monotonic() < deadline, answer.text
        time.sleep(1)
    return answer


def training(served):
    """Ray's workers under the server's process that train a network."""
    return [
        one for one in psutil.Process(served.pid).children(recursive=True) if title(one).startswith("ray::_run_once")
    ]


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until(happens, complaint):
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)


def num_runs(address):
    return httpx.post(f"{address}/api/flow_runs/count", json={}, timeout=60).json()


def start_from(address, deployment, config, folder):
    """The form's first values: a study that takes seconds (the table's, until verification)."""
    parameters = {"config": config.model_dump(mode="json"), "root": str(folder / "study"), "until": "verify"}
    asked_again("PATCH", f"{address}/api/deployments/{deployment['id']}", {"parameters": parameters})


def fill(page, old, new):
    """Another text in the form's field whose text starts with ``old``."""
    page.get_by_text("Limits", exact=False).first.wait_for()
    field = page.locator("input, textarea").filter(has_not_text="\0")
    for index in range(field.count()):
        if field.nth(index).input_value().strip('"').startswith(old):
            field.nth(index).fill(new)
            return
    raise AssertionError(f"no field holds {old}")


def submit(page):
    page.get_by_role("button", name=re.compile("^Submit|^Run")).last.click()


def newest_run(address):
    deadline = time.monotonic() + 60
    while True:
        found = httpx.post(
            f"{address}/api/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_DESC"}, timeout=60
        ).json()
        if found:
            return found[0]
        assert time.monotonic() < deadline, "the form started no run"
        time.sleep(1)


def run_of(address, run_id):
    return asked_again("GET", f"{address}/api/flow_runs/{run_id}", None).json()


def wait_for_end(address, run_id):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        run = run_of(address, run_id)
        if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        assert time.monotonic() < deadline, run["state"]
        time.sleep(1)


def look_at_artifacts(address, page):
    """Every kind is there, and a figure is drawn in the page."""
    artifacts = httpx.post(f"{address}/api/artifacts/filter", json={}, timeout=60).json()
    assert {"progress", "table", "markdown"} <= {row["type"] for row in artifacts}
    keys = {row["key"]: row for row in artifacts if row["key"]}
    assert {"table-score", "table-select", "table-verify", "table-score-figures"} <= keys.keys()
    page.goto(f"{address}/artifacts/artifact/{keys['table-select']['id']}")
    page.get_by_text("predicted").first.wait_for()
    shoot(page, "6-selection-table")
    page.goto(f"{address}/artifacts/artifact/{keys['table-score-figures']['id']}")
    image = page.locator("img[alt=block_effects]").first
    image.wait_for()
    assert image.evaluate("image => image.naturalWidth") > 300
    shoot(page, "7-figure-in-the-page")
