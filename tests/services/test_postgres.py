"""PostgreSQL behind Prefect and MLflow, an S3 server beneath: two studies at once, no lock errors."""

import json
import os
import subprocess
import sys

import psycopg2
import pytest
import yaml

from flows.prefect_server import _free_port, _start, _wait_for
from nas_core.study.study import Study
from tests.services.s3 import S3Server
from tests.services.servers import _end, mlflow_server, postgres_binaries, postgres_server

pytestmark = [pytest.mark.services, pytest.mark.skipif(postgres_binaries() is None, reason="needs PostgreSQL")]


def test_two_studies_at_once(tabular_config, tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    os.chmod(tmp_path, 0o755)
    for parent in list(tmp_path.parents)[:3]:
        os.chmod(parent, 0o755)  # the database's own user must get through
    with postgres_server(tmp_path, ["prefect", "mlflow"]) as address, S3Server() as s3:
        port = _free_port()
        os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{address}/prefect"
        try:
            server = _start(port, page=False)
        finally:
            del os.environ["PREFECT_API_DATABASE_CONNECTION_URL"]
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", server)
            with mlflow_server(tmp_path, f"postgresql+psycopg2://{address}/mlflow") as (_, mlflow_url):
                environment = {
                    **os.environ,
                    **s3.environment,
                    "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
                    "MLFLOW_TRACKING_URI": mlflow_url,
                }
                roots = [s3.uri("studies-a"), s3.uri("studies-b")]
                outputs = run_at_once(config, roots, environment)
                reported = [run("report", root, environment=environment) for root in roots]
        finally:
            _end(server)
        with s3.credentials():
            answers = [Study.open(root).output("selection.json")["selections"] for root in roots]
        assert answers[0] == answers[1]
        assert not [text for text in [*outputs, *reported] if "lock" in text.lower()]
        assert count(address, "prefect", "select count(*) from flow_run where state_type = 'COMPLETED'") >= 10
        assert count(address, "mlflow", "select count(*) from runs where status = 'FINISHED'") == 2


def run(*arguments, environment):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=500, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def run_at_once(config, roots, environment):
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(config), "--root", root, "--until", "verify"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for root in roots
    ]  # fmt: skip
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs


def count(address, database, query):
    connection = psycopg2.connect(f"postgresql://{address}/{database}")
    with connection.cursor() as cursor:
        cursor.execute(query)
        (number,) = cursor.fetchone()
    connection.close()
    return number
