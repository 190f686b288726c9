"""`mathnas serve`: the flows on Prefect's page, for one machine."""

import warnings
from pathlib import Path

from flows.prefect_server import prefect_api
from flows.preflight import preflight_serving
from nas_core.base.errors import without_passwords
from nas_core.base.settings import read_as
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.config import StudyConfig

DESIGN_EXAMPLE = Path(__file__).parent / "configs" / "deepmad.yaml"


def serve_flows(root: str, port: int, limit: int) -> None:
    """Serve the study, its stages and the design until interrupted; starts a server where none is configured."""
    preflight_serving(root)
    with prefect_api(port, page=True) as url:
        from prefect import serve
        from prefect.deployments.runner import EntrypointType

        from flows.designing import design
        from flows.study import FLOWS, run_study

        base = root if "://" in root else str(Path(root).absolute())
        # the forms are filled with the defaults; a design has none for its limits
        study = {"config": StudyConfig().model_dump(mode="json"), "root": f"{base}/study"}
        analytic = {"config": read_as(AnalyticConfig, DESIGN_EXAMPLE).model_dump(mode="json"), "root": f"{base}/design"}
        named = {"study": (run_study, study), "design": (design, analytic)}
        named |= {name: (flow, study) for name, flow in FLOWS.items()}
        deployments = [
            flow.to_deployment(
                name=name, parameters=parameters, tags=["mathnas"], entrypoint_type=EntrypointType.MODULE_PATH
            )
            for name, (flow, parameters) in named.items()
        ]
        # Prefect's own, where it is told to stop
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited", RuntimeWarning)
        print(f"Prefect's page: {without_passwords(url).removesuffix('/api')}/deployments  (Ctrl-C stops)", flush=True)
        serve(*deployments, limit=limit, print_starting_message=False)
