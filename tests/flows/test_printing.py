"""A finished run is not lost to a character that a terminal lacks, nor to a reader that has gone."""

import json
import os
import subprocess
import sys

import pytest

from flows.printing import is_of_a_gone_reader
from nas_core.base.errors import NasError
from tests.command import mathnas, process_environment

pytestmark = pytest.mark.situations
SAY = "from flows.printing import print_what_can_be_printed; print_what_can_be_printed(); print({text!r})"


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "3⁸ – τ ≥ 0.5 ± 1 × größe 花", "38 - tau >= 0.5 +- 1 x grosse ?"),
        ("latin-1", "größe ≤ 3", "größe <= 3"),
        ("utf-8", "größe ≤ 3", "größe ≤ 3"),
    ],
)
def test_what_an_encoding_lacks_is_printed_in_its_letters(encoding, text, printed):
    done = subprocess.run(
        [sys.executable, "-c", SAY.format(text=text)],
        env=process_environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode(encoding).strip() == printed


def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "spaces"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("mathnas: standard output: found No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_read_enough_is_no_error():
    command = f"{sys.executable} -m flows.cli plugins | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout
    assert not done.stderr


PRINTING = """
import torch
from torch import nn

class Talks(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), *(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(4)))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        print("at work", flush=True)
        return self.head(self.layers(x))

def build():
    print("the factory", flush=True)
    torch.manual_seed(0)
    return Talks()
"""


def shrink(folder, *more):
    (folder / "mine.py").write_text(PRINTING)
    given = ["--data", "digits", "--limit", "flops<=60%", "--out", folder / "out", "--dry-run"]
    return ["shrink", f"{folder / 'mine.py'}:build", *given, *more]


def test_what_a_model_prints_is_no_part_of_the_json(tmp_path):
    done = mathnas(*shrink(tmp_path, "--json"))
    assert json.loads(done.stdout)["study"] == "build-shrunk"
    assert {"the factory", "at work"} <= set(done.stderr.splitlines())


def test_a_model_that_prints_to_a_reader_that_has_gone_is_no_error(tmp_path):
    command = " ".join(map(repr, map(str, (sys.executable, "-m", "flows.cli", *shrink(tmp_path)))))
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | true"], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_second_driver_is_refused_before_the_files_of_the_first_are_replaced(tmp_path):
    (tmp_path / "out/study").mkdir(parents=True)
    (tmp_path / "out/study.yaml").write_text("of the first")
    command = shrink(tmp_path)[:-1]
    holding = "import sys; from nas_core.records.lease import hold; from nas_core.records.store import Store\n"
    holding += f"with hold(Store({str(tmp_path / 'out/study')!r})): print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process_environment()
    ) as first:
        first.stdout.readline()
        done = mathnas(*command)
        first.stdin.close()
    assert "expected no other driver" in done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert "Wrote" not in done.stderr
    assert (tmp_path / "out/study.yaml").read_text() == "of the first"


def test_an_error_of_another_pipe_is_told(monkeypatch):
    error = NasError("here", "x", "y")
    error.__context__ = BrokenPipeError()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread, open(os.devnull, "w") as read:
        monkeypatch.setattr(sys, "stdout", read)
        assert not is_of_a_gone_reader(error)
        monkeypatch.setattr(sys, "stdout", unread)
        assert is_of_a_gone_reader(error)
        assert not is_of_a_gone_reader(NasError("here", "x", "y"))


def test_wrong_use_is_still_said_by_the_command_line():
    done = mathnas("no-such-verb")
    assert done.returncode == 2
    assert "no-such-verb" in done.stderr
