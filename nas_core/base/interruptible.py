"""Ctrl-C while OR-Tools searches: the search ends, and whoever asked for it hears of it."""

import threading
from queue import SimpleQueue
from typing import Any

STOP_S = 0.1  # between two calls for an end, the first of which may come before the search begins


def solve_interruptibly(solver: Any, model: Any) -> Any:
    """What ``solver.solve(model)`` (a CpSolver's) returns, or raises.

    Left to itself the solver takes Ctrl-C for its own end, and a run goes on
    with half an answer; no other signal is heard until it is done.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal arrives here
        return solver.solve(model)
    solver.parameters.catch_sigint_signal = False
    answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def search() -> None:
        try:
            answer.put((solver.solve(model), None))
        except BaseException as error:
            answer.put((None, error))

    searching = threading.Thread(target=search, name="cp-sat", daemon=True)
    searching.start()
    try:
        status, error = answer.get()
    except BaseException:  # what a signal's handler raises
        while searching.is_alive():
            solver.stop_search()
            searching.join(STOP_S)
        raise
    if error is not None:
        raise error
    return status
