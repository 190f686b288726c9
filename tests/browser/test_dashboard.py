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

import httpx
import pytest

from flows.prefect_server import _free_port
from nas_core.study import Study

playwright = pytest.importorskip("playwright.sync_api", reason="`make test-browser` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
SCREENSHOTS = Path(__file__).parents[1] / "output/browser"
LIMIT = "params<=1.9 M"
PATIENCE_S = 500


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
    yield address, folder
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
    address, folder = served
    deployment = names_of_deployments(address)["study"]
    start_from(address, deployment, tabular_config, folder)
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Limits", exact=False).first.wait_for()
    shoot(page, "1-form")
    change_limit(page)
    shoot(page, "2-limit-changed")
    page.get_by_role("button", name=re.compile("^Submit|^Run")).last.click()
    run = newest_run(address)
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    shoot(page, "3-running")
    final = wait_for_end(address, run["id"])
    assert final["state"]["type"] == "COMPLETED", final["state"]
    shoot(page, "4-finished")
    assert Study.open(str(folder / "study")).config.select.limits == [LIMIT]
    page.goto(f"{address}/runs/flow-run/{run['id']}?tab=Artifacts")
    shoot(page, "5-artifacts")
    look_at_artifacts(address, page)


def start_from(address, deployment, config, folder):
    """The form's first values: a study that takes seconds (the table's, until verification)."""
    parameters = {"config": config.model_dump(mode="json"), "root": str(folder / "study"), "until": "verify"}
    deadline = time.monotonic() + 60
    while True:  # a server that has just started may be busy
        answer = httpx.patch(
            f"{address}/api/deployments/{deployment['id']}", json={"parameters": parameters}, timeout=30
        )
        if answer.is_success:
            return
        assert time.monotonic() < deadline, answer.text
        time.sleep(1)


def change_limit(page):
    field = page.locator("input, textarea").filter(has_not_text="\0")
    for index in range(field.count()):
        if field.nth(index).input_value().strip('"').startswith("params<="):
            field.nth(index).fill(LIMIT)
            return
    raise AssertionError("no field holds the limit")


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


def wait_for_end(address, run_id):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        run = httpx.get(f"{address}/api/flow_runs/{run_id}", timeout=60).json()
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
