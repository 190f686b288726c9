"""What the shell brings along, before any library reads it."""

import subprocess
import sys

import pytest

from tests.command import process_environment

pytestmark = pytest.mark.situations
PRINT = "import os, tasks.environment; print(os.environ.get({name!r}))"


def seen(name, **variables):
    """The variable as the libraries of a process with these variables see it."""
    command = [sys.executable, "-c", PRINT.format(name=name)]
    done = subprocess.run(command, env=process_environment(**variables), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_asked_for_this_machine(name):
    assert seen(name, HTTP_PROXY="http://127.0.0.1:9", no_proxy="", NO_PROXY="") == "127.0.0.1,localhost,::1"
    assert seen(name, **{name: "intra.net, ::1"}) == "intra.net,::1,127.0.0.1,localhost"


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "https_proxy"])
def test_a_proxy_that_nobody_here_speaks_with_ends_no_request(name):
    assert seen(name, **{name: "socks5://127.0.0.1:9"}) == "None"
    assert seen(name, **{name: "http://127.0.0.1:9"}) == "http://127.0.0.1:9"
