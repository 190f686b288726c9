"""What the libraries below read from the environment when they are imported, set before they are.

Everything here is a default: a variable that is already set is left alone.
"""

import os

DEFAULTS = {
    # no usage statistics, no telemetry, no look-ups on the network
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    # matrices here are small: threads that spin for them cost more than they save (torch has its own)
    "OPENBLAS_NUM_THREADS": "1",
    # a cold in-process Prefect server needs longer than the default on a busy machine
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
# Ray's switch between "this machine's outer address" and loopback, despite its name
RAY_LISTENS_OUTSIDE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
NO_PAGE = "MATHNAS_NO_PAGE"  # ours: set where Prefect's page is not served, so nothing is drawn for it

for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
if os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
    os.environ.setdefault(RAY_LISTENS_OUTSIDE, "0")
