"""The store: parts are whole, checked, versioned, and stay inside the root."""

import os
import pickle
import signal
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_core.base.errors import ConfigError, StoreError
from nas_core.records.evaluations import Cost, Evaluation, to_table
from nas_core.records.store import Store, _checksum, missing, no_empty_folder, shared_store


def evaluation(genotype="0-1", metric=0.5, **changes):
    fields = {
        "space_id": "space", "scorer_id": "scorer", "genotype": genotype, "seed": 0, "status": "ok", "metric": metric,
        "metric_name": "accuracy", "higher_is_better": True, "split": "validation", "num_examples": 10,
        "wall_s": 0.1, "device": "cpu",
    }  # fmt: skip
    return Evaluation(**{**fields, **changes})


def cost(value, **changes):
    fields = {
        "space_id": "space", "profiler_id": "clock", "device": "cpu", "genotype": "", "position": 0, "choice": 0,
        "resolution": 32, "resource": "latency_ms", "status": "ok", "value": value, "spread": 0.0, "num_repeats": 3,
        "batch_size": 1, "num_threads": 1,
    }  # fmt: skip
    return Cost(**{**fields, **changes})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "study")


def test_rows_come_back_as_they_were_written(store):
    rows = [evaluation("0-1"), evaluation("1-1", None, status="failed", message="NaN loss")]
    store.add_evaluations(rows)
    assert store.evaluations("space", "scorer") == rows


def test_the_same_rows_written_twice_are_one_part(store):
    assert store.add_evaluations([evaluation()]) == store.add_evaluations([evaluation()])
    assert len(store.paths("evaluations")) == 1


def test_a_success_wins_over_a_failure_of_the_same_key(store):
    store.add_evaluations([evaluation(metric=None, status="failed")])
    store.add_evaluations([evaluation(metric=0.7)])
    assert [row.metric for row in store.evaluations("space", "scorer")] == [0.7]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: data[:50] + b"\xff" + data[51:], lambda data: b""]
)
def test_a_damaged_part_is_set_aside_and_its_rows_are_missing(store, damage):
    part = store.add_evaluations([evaluation("0-1")])[0]
    store.add_evaluations([evaluation("1-1")])
    store.write_bytes(part, damage(store.read_bytes(part)))
    left = store.evaluations("space", "scorer")
    assert [row.genotype for row in left] == ["1-1"]
    assert missing(["0-1", "1-1"], left) == ["0-1"]
    assert len(store.quarantined()) == 1


def test_a_part_of_another_version_is_refused(store):
    table = to_table([evaluation()]).replace_schema_metadata({"schema_version": "99"})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    store.write_bytes(f"evaluations/space/scorer/{_checksum(data)}.parquet", data)
    with pytest.raises(StoreError, match="schema version 99, expected schema version 1"):
        store.evaluations("space", "scorer")


def test_a_part_whose_text_is_no_text_is_refused(store):
    table = to_table([evaluation()])
    index = table.schema.get_field_index("genotype")
    broken = pa.array([b"0-\xdf"], pa.binary()).view(pa.string())
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(index, table.schema.field("genotype"), broken), sink)
    data = sink.getvalue().to_pybytes()
    store.write_bytes(f"evaluations/space/scorer/{_checksum(data)}.parquet", data)
    with pytest.raises(StoreError, match="Invalid UTF8"):
        store.evaluations("space", "scorer")


def test_a_half_written_file_is_never_seen(store, tmp_path):
    folder = tmp_path / "study/evaluations/space/scorer"
    folder.mkdir(parents=True)
    (folder / ".abc.parquet.123").write_bytes(b"half")
    assert store.paths() == []
    assert store.evaluations("space", "scorer") == []


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b"])
def test_no_path_leaves_the_root(store, path):
    with pytest.raises(StoreError, match="inside the study"):
        store.write_bytes(path, b"x")


def test_compaction_keeps_every_row(store):
    for number in range(5):
        store.add_evaluations([evaluation(f"0-{number}")])
    before = store.evaluations("space", "scorer")
    assert store.compact() == 5
    assert len(store.paths("evaluations")) == 1
    assert sorted(store.evaluations("space", "scorer"), key=str) == sorted(before, key=str)


def test_a_store_travels_to_workers_by_its_root(store):
    store.write_json("a.json", {"b": 1})
    assert pickle.loads(pickle.dumps(store)).read_json("a.json") == {"b": 1}


def test_a_missing_study_is_said(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        Store(tmp_path / "nowhere", create=False)


def test_a_root_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        Store(tmp_path / "file" / "study")


def test_what_is_refused_leaves_no_empty_folder(tmp_path):
    def write_and_refuse(root, written):
        with no_empty_folder(str(root)):
            store = Store(root)
            for path in written:
                store.write_bytes(path, b"x")
            raise ConfigError("data.path", "nowhere", "a folder")

    def refused(root, *written):
        with pytest.raises(ConfigError):
            write_and_refuse(root, written)

    refused(tmp_path / "studies" / "mine")
    assert not list(tmp_path.iterdir())
    refused(tmp_path / "studies" / "mine", "study.yaml")
    assert (tmp_path / "studies" / "mine" / "study.yaml").is_file()
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()  # it was there before


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs Linux's /proc")
def test_a_root_that_cannot_be_made_is_said():
    with pytest.raises(StoreError, match="/proc/mathnas"):
        Store("/proc/mathnas")


def test_a_root_with_credentials_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="a URI without credentials") as caught:
        Store("s3://KEY:pLanted@bucket/study")
    assert "pLanted" not in str(caught.value)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(StoreError, match=r"on node .* every node of the cluster sees"):
        shared_store(str(tmp_path / "elsewhere"))


def test_rows_are_read_whole_while_parts_are_merged(store, monkeypatch):
    for index in range(3):
        store.add_evaluations([evaluation(f"{index}-0")])
    listed = store._parts

    def merged_after_the_listing(folder):
        paths = listed(folder)
        monkeypatch.setattr(store, "_parts", listed)
        store.compact()
        return paths

    monkeypatch.setattr(store, "_parts", merged_after_the_listing)
    assert len(store.evaluations("space", "scorer")) == 3


def test_measured_costs_are_replaced_whole(store):
    """Times of different days do not belong together."""
    store.add_costs([cost(1.0), cost(2.0, choice=1)])
    store.replace_costs([cost(3.0), cost(4.0, choice=1)])
    assert sorted(row.value for row in store.costs("space")) == [3.0, 4.0]


def test_an_upload_is_finished_before_a_signal_gets_through(store, monkeypatch):
    store.is_local = False  # written as on an object store
    upload = store._upload

    def stop(*_):
        raise InterruptedError

    def interrupted(target, data):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.3)
        upload(target, data)

    monkeypatch.setattr(store, "_upload", interrupted)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(InterruptedError):
            store._write("x", b"whole")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert store.read_bytes("x") == b"whole"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_errors_of_the_disk_are_told_in_words(store, monkeypatch):
    def no_space(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", no_space)
    with pytest.raises(StoreError, match=r"No space left.*resumes"):
        store.write_bytes("x", b"y")


def test_a_store_that_errs_for_a_while_is_asked_again(store, monkeypatch):
    monkeypatch.setattr("nas_core.records.store.RETRY_DELAYS_S", (0.0, 0.0))
    answers = iter([OSError(5, "Input/output error"), OSError(5, "Input/output error"), None])

    def flaky(path, data):
        answer = next(answers)
        if answer:
            raise answer

    monkeypatch.setattr(store, "_write", flaky)
    store.write_bytes("x", b"y")


def test_rows_come_in_one_order_however_they_were_stored(tmp_path):
    rows = [evaluation(f"{number}-1", wall_s=number) for number in range(9)]
    orders = []
    for name, written in (("there", rows), ("back", rows[::-1])):
        store = Store(tmp_path / name)
        for row in written:
            store.add_evaluations([row])
        orders.append(store.evaluations("space", "scorer"))
    assert orders[0] == orders[1] == rows


@pytest.fixture
def reads(store, monkeypatch):
    """Paths that were read."""
    paths, real = [], store.read_bytes
    monkeypatch.setattr(store, "read_bytes", lambda path: paths.append(path) or real(path))
    return paths


def test_a_part_is_read_once(store, reads):
    first = store.add_evaluations([evaluation("0-1")])
    assert len(store.evaluations("space", "scorer")) == len(store.evaluations("space", "scorer")) == 1
    second = Store(store.root).add_evaluations([evaluation("1-1")])  # by another process
    assert [row.genotype for row in store.evaluations("space", "scorer")] == ["0-1", "1-1"]
    assert reads == [*first, *second]


def test_rows_of_a_part_that_is_gone_are_forgotten(store):
    gone, _ = store.add_evaluations([evaluation("0-1")])[0], store.add_evaluations([evaluation("1-1")])
    assert len(store.evaluations("space", "scorer")) == 2
    Store(store.root).delete(gone)
    assert [row.genotype for row in store.evaluations("space", "scorer")] == ["1-1"]


def test_failures_that_were_read_are_dropped(store):
    store.add_evaluations([evaluation("0-1"), evaluation("1-1", None, status="failed", message="NaN loss")])
    assert len(store.evaluations("space", "scorer")) == 2
    assert store.drop_failed("space", "scorer", 0) == 1
    assert [row.genotype for row in store.evaluations("space", "scorer")] == ["0-1"]


def test_rows_that_were_read_are_not_changed_by_who_has_them(store):
    store.add_evaluations([evaluation("0-1")])
    store.evaluations("space", "scorer").clear()
    assert len(store.evaluations("space", "scorer")) == 1
