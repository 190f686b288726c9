"""``mathnas select PROBLEM.json`` as a person uses it: words, units, notes, certificates."""

import io
import json
import os
import subprocess
import sys

import pytest

PROBLEM = {
    "score": [[71.2, 73.5, 75.1], [0.0, 0.9, 1.4], [0.0, 0.2, 1.1]],
    "costs": {
        "params_M": [[1.2, 2.4, 4.1], [0.2, 0.5, 1.1], [0.1, 0.6, 1.5]],
        "FLOPs (M)": [[100, 200, 400], [10, 30, 90], [10, 20, 80]],
    },
    "base": "2-2-2",
}


def select(path, *arguments):
    command = [sys.executable, "-m", "flows.cli", "select", str(path), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "problem.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PROBLEM).encode())
    return path


@pytest.mark.parametrize(
    ("limit", "genotype"),
    [
        ("params_M<=5 M", "1-2-2"),
        ('"FLOPs (M)"<=60%', "1-1-2"),
        ("params_M<=5000 K", "1-2-2"),
        ("params_M<=5", "1-2-2"),
    ],
)
def test_limits_are_read_in_the_unit_that_a_name_states(problem, limit, genotype):
    answer = json.loads(select(problem, "--limit", limit, "--json").stdout)
    assert answer["selections"][0]["genotype"] == genotype
    assert answer["notes"] == []


def test_a_limit_that_binds_nothing_is_said(problem):
    assert (
        "params_M <= 9 binds nothing: the most that any network has is 6.7 M params."
        in select(problem, "--limit", "params_M<=9").stdout
    )


def test_a_certificate_is_written_and_verified_alone(problem, tmp_path):
    path = tmp_path / "certificate.json"
    done = select(problem, "--limit", "params_M<=5", "--top", 3, "--certify", path)
    assert done.returncode == 0, done.stderr
    assert f"python -m nas_core.program {path}" in done.stdout
    check = subprocess.run(
        [sys.executable, "-m", "nas_core.program", path], check=False, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr
    assert "optimal, as shown" in check.stdout
    data = json.loads(path.read_text())
    data["answers"][0]["value"] = "77"
    path.write_text(json.dumps(data))
    check = subprocess.run(
        [sys.executable, "-m", "nas_core.program", path], check=False, capture_output=True, text=True
    )
    assert check.returncode == 1


def test_a_distance_that_no_two_networks_have_is_refused(problem):
    done = select(problem, "--top", "2", "--min-distance", "99")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--min-distance: found 99, expected" in done.stderr


def test_a_certificate_takes_no_place_of_anything_else(problem, tmp_path):
    mine, certificate = tmp_path / "selection.json", tmp_path / "certificate.json"
    mine.write_text("{}")
    done = select(problem, "--certify", mine)
    assert (done.returncode, done.stdout, mine.read_text()) == (2, "", "{}")
    assert "which holds something else, expected a name that is free" in done.stderr
    for _ in range(2):  # an earlier one gives way
        assert select(problem, "--certify", certificate).returncode == 0


def test_a_certificate_that_cannot_be_written_is_refused_before_the_answer(problem, tmp_path):
    (tmp_path / "file").touch()
    too_long, in_a_file = tmp_path / ("c" * 300), tmp_path / "file" / "certificate.json"
    os.mkfifo(pipe := tmp_path / "pipe")
    for path in (tmp_path / "away" / "certificate.json", tmp_path, too_long, in_a_file, pipe):
        done = select(problem, "--certify", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--certify: found {path}, expected a file in a folder that exists" in done.stderr


def test_infeasible_is_certified_too_and_told_apart_from_stopped(problem, tmp_path):
    path = tmp_path / "certificate.json"
    done = select(problem, "--limit", "params_M<=1", "--certify", path)
    assert done.returncode == 2
    assert "params_M <= 1 cannot be met; attainable: least params_M 1.5" in done.stderr
    assert json.loads(path.read_text())["status"] == "infeasible"


def test_stopped_is_not_infeasible():
    from nas_core.study.choices import without_network

    message = str(without_network("stopped", ["flops <= 3"], ""))
    assert "Whether the limits can be met is not known" in message
    assert "limits that some network satisfies" not in message


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_line_on_a_terminal_and_nowhere_else(monkeypatch):
    from flows.select_command import progress_line

    for stream, top, shown in ((Terminal(), 1_000, True), (io.StringIO(), 1_000, False), (Terminal(), 1, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_line(top) as tell:
            assert (tell is not None) == shown
            if tell is not None:
                tell(412)
                assert stream.getvalue() == "\r412 of 1000 ranks proven"
        assert not stream.getvalue().rpartition("\r")[2]


def test_ranks_that_the_time_cut_off_are_said(tmp_path):
    path = tmp_path / "problem.json"
    score = [[(7 * p * c + c * c) % 97 / 97 for c in range(9)] for p in range(25)]
    costs = {f"r{k}": [[(5 * p * c + k * c + p) % 89 + 1 for c in range(9)] for p in range(25)] for k in range(8)}
    budgets = [{"resource": name, "at_most": 25 * 40} for name in costs]
    path.write_text(json.dumps({"score": score, "costs": costs, "budgets": budgets}))
    done = select(path, "--top", 10_000, "--time", 0.5)
    assert done.returncode == 0, done.stderr
    assert "of 10000 " in done.stdout
    assert "the time limit of 0.5 s cut off the rest." in done.stdout
