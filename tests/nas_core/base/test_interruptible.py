"""Ctrl-C during a search of OR-Tools ends it and is heard; otherwise the search is what it was."""

import signal
import subprocess
import sys
import time

import pytest

from nas_core.base.interruptible import solve_interruptibly

pytestmark = pytest.mark.situations
LONG_S = 120
SEARCH = f"""
import random
from ortools.sat.python import cp_model
from nas_core.base.interruptible import solve_interruptibly
model, rng = cp_model.CpModel(), random.Random(0)
take = [model.new_bool_var("") for _ in range(300)]
for _ in range(8):
    weights = [rng.randint(100, 1000) for _ in take]
    model.add(sum(weight * each for weight, each in zip(weights, take)) <= sum(weights) // 2)
model.maximize(sum(rng.randint(100, 1000) * each for each in take))
solver = cp_model.CpSolver()
solver.parameters.max_time_in_seconds, solver.parameters.num_workers = {LONG_S}, 1
print("searching", flush=True)
solve_interruptibly(solver, model)
print("went on")
"""


def test_ctrl_c_during_a_search_is_heard():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SEARCH], **pipes) as process:
        assert process.stdout.readline() == "searching\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=LONG_S / 2)
    assert "KeyboardInterrupt" in complaint
    assert "went on" not in printed


def test_an_answer_and_an_error_come_through():
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    number = model.new_int_var(0, 10, "")
    model.maximize(number)
    solver = cp_model.CpSolver()
    assert solve_interruptibly(solver, model) == cp_model.OPTIMAL
    assert solver.value(number) == 10
    with pytest.raises(AttributeError):
        solve_interruptibly(solver, None)
