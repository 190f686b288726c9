"""`mathnas serve`: the flows on Prefect's page, for one machine."""

from flows.prefect_server import prefect_api


def serve_flows(root: str, port: int, limit: int) -> None:
    """Serve the study and its stages until interrupted; starts a server where none is configured."""
    with prefect_api(port, page=True) as url:
        from prefect import serve

        from flows.study import FLOWS, run_study

        named = {"study": run_study, **FLOWS}
        deployments = [
            flow.to_deployment(name=name, parameters={"root": f"{root}/study"}, tags=["mathnas"])
            for name, flow in named.items()
        ]
        print(f"Prefect's page: {url.removesuffix('/api')}/deployments  (Ctrl-C stops)", flush=True)
        serve(*deployments, limit=limit, print_starting_message=False)
