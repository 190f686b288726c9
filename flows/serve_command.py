"""`mathnas serve`: the flows on Prefect's page, for one machine."""

import asyncio
import os
import tempfile
import warnings
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.prefect_server import prefect_api
from flows.preflight import preflight_serving
from nas_core.base.errors import without_passwords
from nas_core.base.identity import content_id
from nas_core.base.settings import read_as
from nas_core.records.store import absolute
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.config import StudyConfig
from tasks.saying import never_silent

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment

DESIGN_EXAMPLE = Path(__file__).parent / "configs" / "deepmad.yaml"


def serve_flows(root: str, port: int, limit: int) -> None:
    """Serve the study, its stages and the design until interrupted; starts a server where none is configured."""
    preflight_serving(root)
    base = absolute(root)
    # Prefect puts the directory that is served from before everything on a run's path, where a user's own folders
    # `flows` and `tasks` would be taken for ours; a relative root on the form is then below the root of all studies
    os.chdir(base if "://" not in base else tempfile.gettempdir())
    _own_home(base)
    with ExitStack() as server:
        with never_silent():  # until it serves: then it waits to be asked
            url = server.enter_context(prefect_api(port, page=True))
            from prefect.exceptions import TerminationSignal
            from prefect.runner import Runner

            runner = Runner(limit=limit)
            for deployment in _deployments(base):
                runner.add_deployment(deployment)  # `prefect.serve` does both, and says nothing in between
        # Prefect's own, where it is told to stop
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited", RuntimeWarning)
        print(f"Prefect's page: {without_passwords(url).removesuffix('/api')}/deployments  (Ctrl-C stops)", flush=True)
        with suppress(KeyboardInterrupt, TerminationSignal):
            asyncio.run(_quietly_cancelled(runner.start()))


async def _quietly_cancelled(serving: Coroutine[Any, Any, None]) -> None:
    """The runner's work, of which a connection that is open at its end is no error, as Pythons before 3.12 have it."""

    def told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), asyncio.CancelledError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(told)
    await serving


def _deployments(base: str) -> list["RunnerDeployment"]:
    """The study, the design and every stage, their forms filled with the defaults; a design has none for its limits."""
    from prefect.types.entrypoint import EntrypointType

    from flows.designing import design
    from flows.study import FLOWS, run_study

    study = {"config": StudyConfig().model_dump(mode="json"), "root": f"{base}/study"}
    analytic = {"config": read_as(AnalyticConfig, DESIGN_EXAMPLE).model_dump(mode="json"), "root": f"{base}/design"}
    named: dict[str, tuple[Flow[..., Any], dict[str, Any]]]
    named = {"study": (run_study, study), "design": (design, analytic)}
    named |= {name: (flow, study) for name, flow in FLOWS.items()}
    as_modules: dict[str, Any] = {"tags": ["mathnas"], "entrypoint_type": EntrypointType.MODULE_PATH}
    return [
        cast("RunnerDeployment", flow.to_deployment(name=name, parameters=parameters, **as_modules))
        for name, (flow, parameters) in named.items()
    ]


def _own_home(base: str) -> None:
    """Prefect's database is beside the studies unless told otherwise: the user's own would show other runs, too."""
    told = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_DATABASE_CONNECTION_URL")
    if not any(os.environ.get(name) for name in told):
        folder = (
            Path(base) / ".prefect"
            if "://" not in base
            else Path.home() / f".prefect/mathnas-{content_id({'root': base})}"
        )
        os.environ["PREFECT_HOME"] = str(folder)
