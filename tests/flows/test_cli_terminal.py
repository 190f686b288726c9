"""The command line in a real terminal, and in the shells of real users."""

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from nas_core.study.study import Study
from tests.command import process_environment

pytestmark = [pytest.mark.situations, pytest.mark.slow]
PATIENCE_S = 300
CTRL_C = b"\x03"


class Terminal:
    """A command in a terminal of its own, which is typed at and read."""

    def __init__(self, command, environment):
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environment)
        self.text = ""

    def wait_for(self, words):
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.text:
            assert self._read(), self.text
            assert time.monotonic() < deadline, self.text

    def type(self, keys):
        os.write(self._end, keys)

    def to_its_end(self):
        """Its exit code."""
        while self._read():
            pass
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close_window(self):
        """As a terminal that is closed: its end is gone, the processes in it get SIGHUP."""
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self):
        ready, _, _ = select.select([self._end], [], [], PATIENCE_S)
        assert ready, self.text
        with contextlib.suppress(OSError):  # the other end is closed
            data = os.read(self._end, 65536)
            self.text += data.decode(errors="replace")
            return bool(data)
        return False


@pytest.fixture
def config(tabular_config, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(json.loads(tabular_config.model_dump_json())))
    return path


def command(config, root, *more):
    return [sys.executable, "-m", "flows.cli", "run", str(config), "--root", str(root), "--until", "select", *more]


@pytest.mark.parametrize("moment", ["starting", "score "])
def test_ctrl_c_says_that_the_same_command_goes_on(config, tmp_path, moment):
    long = ("--set", "design.networks=300")  # or a quick machine has ended before it is interrupted
    terminal = Terminal(command(config, tmp_path / "study", *long), process_environment())
    if moment == "starting":
        time.sleep(3)
    else:
        terminal.wait_for(moment)
    terminal.type(CTRL_C)
    assert terminal.to_its_end() == 130
    assert "mathnas: interrupted; the same command goes on where this one stopped" in terminal.text
    assert "Traceback" not in terminal.text


def test_a_terminal_that_is_closed_takes_the_processes_along(config, tmp_path):
    root = tmp_path / "study"
    terminal = Terminal(command(config, root), process_environment())
    terminal.wait_for("score ")
    family = psutil.Process(terminal.pid).children(recursive=True)
    assert terminal.close_window() == 129
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert not (root / "lease.json").exists()


def test_a_study_runs_whatever_the_shell_brings_along(config, tmp_path):
    """Proxies that nobody answers at, a long TMPDIR, an encoding without any of our letters."""
    long = tmp_path / ("x" * max(1, 94 - len(str(tmp_path))))
    long.mkdir()
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    others = {"ALL_PROXY": "socks5://127.0.0.1:9", "TMPDIR": str(long), "PYTHONIOENCODING": "ascii", "LANG": "C"}
    done = subprocess.run(
        command(config, tmp_path / "study"),
        env=process_environment(**proxies, **others),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    printed = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == 0, printed
    assert "Traceback" not in printed
    assert "\nwinner  " in printed
    assert Study.open(str(tmp_path / "study")).status()["select"].state == "done"
