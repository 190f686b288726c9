"""The flow `design`: a network designed from limits alone, trained, logged and registered."""

from prefect import flow

import tasks.designing as work
from flows.driving import Wait
from nas_core.base.errors import ClusterError
from nas_core.records.lease import hold
from nas_core.records.store import Store, absolute
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.analytic_project import DesignProject
from tasks.artifacts import show_design
from tasks.ray_pool import Session


@flow(name="design", flow_run_name="design-{config.name}", validate_parameters=True)
def design(config: AnalyticConfig, root: str, wait_s: Wait = 0) -> str:
    """Solve the program, train its answer, register the model: each only where it is missing.

    Args:
        config: the design.
        root: folder or URI of the design's store, which no study shares.
        wait_s: seconds to wait for another driver of the same design to end, at least 0.
    """
    root = absolute(root)
    with Session(), hold(Store(root), wait_s) as lease:
        project = DesignProject.create(config, root)
        if project.answer is None:
            lease.note("solve")
            work.solve(config, root)
        if project.training is None:
            lease.note("train")
            work.train(config, root)
        lease.note("report")
        show_design(project)
        if not work.is_registered(project):
            _register(config, root)
        lease.note("")
    return root


def _register(config: AnalyticConfig, root: str) -> None:
    try:
        work.track(config, root)
        work.check_registered_model(config, root)
    except ClusterError as error:
        advice = f"Nothing is lost: the trained network is in {root}. When it is back, the same command logs it."
        raise ClusterError(error.where, error.found, error.expected, advice) from None
