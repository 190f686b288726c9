"""The command `mathnas` as tests give it: in a process of its own, or in this one where that is not what is asked.

A process takes seconds to import what a run needs, and starts a Ray and a Prefect
server of its own; within this one, the session's are used.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
from unittest import mock

SLOW = ("mathnas: checking the study and its data (", "mathnas: at work (")  # what a slow machine says before
ADDRESSES = ("RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")


def process_environment(**variables):
    """The environment of a process that knows none of the session's servers, with changes."""
    return {**{name: value for name, value in os.environ.items() if name not in ADDRESSES}, **variables}


def mathnas_process(*arguments, **variables):
    """The command in a process of its own, with environment variables."""
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=process_environment(**variables), timeout=300, check=False
    )


def mathnas(*arguments, **variables):
    """The command in this process, with environment variables: what it prints and its exit code.

    Prefect reads its address once a process: one that Prefect itself is to ask is for ``mathnas_process``.
    """
    from flows.cli import main
    from flows.prefect_server import _read_settings_again

    out, err, code = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(sys, "argv", ["mathnas", *map(str, arguments)]),
        mock.patch.dict(os.environ, variables),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
    _read_settings_again()  # Prefect may have been imported meanwhile, and have read the variables
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(*arguments, call=mathnas, **variables):
    """The one-line message of a refused command; a slow machine may have been told before what takes so long."""
    done = call(*arguments, **variables)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("mathnas: "), done.stderr
    *before, message = done.stderr.strip().splitlines()
    assert all(line.startswith(SLOW) for line in before), done.stderr
    return message + "\n"
