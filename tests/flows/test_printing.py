"""A finished run is not lost to a character that a terminal lacks, nor to a reader that has gone."""

import subprocess
import sys

import pytest

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


def test_wrong_use_is_still_said_by_the_command_line():
    done = mathnas("no-such-verb")
    assert done.returncode == 2
    assert "no-such-verb" in done.stderr
