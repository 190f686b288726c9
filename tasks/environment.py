"""What the libraries below read from the environment when they are imported, set before they are.

Everything here is a default: a variable that is already set is left alone.
"""

import os
from importlib.util import find_spec

DEFAULTS = {
    # no usage statistics, no telemetry, no look-ups on the network
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # one whose GCS is gone does not end this process: we look for ourselves
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
    # a job that Ray ends for memory is tried as often as one whose worker dies, not for ever
    "RAY_task_oom_retries": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    # matrices here are small: threads that spin for them cost more than they save (torch has its own)
    "OPENBLAS_NUM_THREADS": "1",
    # what our own modules warn of stands in the log of the run, where there is one
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,nas_core",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # a cold in-process Prefect server needs longer than the default on a busy machine
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
# Ray's switch between "this machine's outer address" and loopback, despite its name
RAY_LISTENS_OUTSIDE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
NO_PAGE = "MATHNAS_NO_PAGE"  # ours: set where Prefect's page is not served, so nothing is drawn for it

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback() -> None:
    """No proxy is asked for this machine's own servers, whatever the shell brings along.

    A SOCKS proxy that the clients here cannot speak would end every request, those to this machine included.
    """
    for name in ("NO_PROXY", "no_proxy"):
        known = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOOPBACK]))
    for name in [*PROXIES, *map(str.upper, PROXIES)]:
        if os.environ.get(name, "").startswith("socks") and find_spec("socksio") is None:
            del os.environ[name]


spare_loopback()
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
if os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
    os.environ.setdefault(RAY_LISTENS_OUTSIDE, "0")
else:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # what its client tries before it gives up is said once
