"""`mathnas serve`: the flows on Prefect's page, for one machine."""

from pathlib import Path

from flows.prefect_server import prefect_api
from nas_core.config import StudyConfig


def serve_flows(root: str, port: int, limit: int) -> None:
    """Serve the study and its stages until interrupted; starts a server where none is configured."""
    with prefect_api(port, page=True) as url:
        from prefect import serve
        from prefect.deployments.runner import EntrypointType

        from flows.study import FLOWS, run_study

        defaults = StudyConfig().model_dump(mode="json")  # the form is filled with them
        uri = f"{root}/study" if "://" in root else str(Path(root).absolute() / "study")
        named = {"study": run_study, **FLOWS}
        deployments = [
            flow.to_deployment(
                name=name,
                parameters={"config": defaults, "root": uri},
                tags=["mathnas"],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
            for name, flow in named.items()
        ]
        print(f"Prefect's page: {url.removesuffix('/api')}/deployments  (Ctrl-C stops)", flush=True)
        serve(*deployments, limit=limit, print_starting_message=False)
