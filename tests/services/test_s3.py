"""The store on a real S3 server: the same contract as a folder, a whole study, a hundred thousand evaluations."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from nas_core.records.evaluations import Evaluation
from nas_core.records.lease import driver, hold
from nas_core.records.store import Store
from nas_core.study.study import Study
from tests.services.s3 import SECRET, S3Server

pytestmark = pytest.mark.services
MANY = 100_000
PART_ROWS = 1000


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server, server.credentials():
        yield server


@pytest.fixture
def store(s3, request):
    return Store(s3.uri(f"bucket-{abs(hash(request.node.name)) % 10**8}"))


def rows(count):
    common = {
        "space_id": "space", "scorer_id": "scorer", "seed": 0, "status": "ok", "metric_name": "accuracy",
        "higher_is_better": True, "split": "validation", "num_examples": 10, "wall_s": 0.1, "device": "cpu",
    }  # fmt: skip
    return [Evaluation(genotype=f"{n // 1000}-{n % 1000}", metric=n / count, **common) for n in range(count)]


def test_files_come_back_and_go(store):
    store.write_json("a/b.json", {"x": 1})
    assert store.read_json("a/b.json") == {"x": 1}
    assert store.paths() == ["a/b.json"]
    assert store.exists("a/b.json")
    store.delete("a")
    assert store.paths() == []
    assert not store.exists("a/b.json")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b.json")


def test_a_damaged_part_is_set_aside(store):
    part = store.add_evaluations(rows(3))[0]
    store.write_bytes(part, store.read_bytes(part)[:-9])
    assert store.evaluations("space", "scorer") == []
    assert len(store.quarantined()) == 1


def test_one_driver_at_a_time(store):
    with hold(store):
        assert driver(store).pid == os.getpid()
    assert driver(store) is None


def test_a_hundred_thousand_evaluations_are_read_in_seconds(store):
    everything = rows(MANY)
    for start in range(0, MANY, PART_ROWS):
        store.add_evaluations(everything[start : start + PART_ROWS])
    began = time.monotonic()
    assert len(store.evaluations("space", "scorer")) == MANY
    parts_s = time.monotonic() - began
    assert store.compact() == MANY // PART_ROWS
    began = time.monotonic()
    assert len(store.evaluations("space", "scorer")) == MANY
    print(f"{MANY} evaluations on S3: {parts_s:.1f} s in parts, {time.monotonic() - began:.1f} s compacted")
    assert len(store.paths("evaluations")) == 1


def test_a_whole_study_on_s3(s3, tabular_config, tmp_path):
    config, root = tmp_path / "study.yaml", s3.uri("studies", "one")
    config.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    command = [sys.executable, "-m", "flows.cli", "run", str(config), "--root", root, "--until", "verify"]
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=500, env={**os.environ, **s3.environment}
        )
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
    study = Study.open(root)
    assert study.status()["verify"].state == "done"
    evaluated = [row.genotype for row in study.evaluations()]
    assert len(evaluated) == len(set(evaluated)) >= len(study.design.genotypes)
    assert all(SECRET.encode() not in study.store.read_bytes(path) for path in study.store.paths())
