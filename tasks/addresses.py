"""The servers that environment variables name: do they answer?"""

import os
import socket
from urllib.parse import urlsplit

from nas_core.base.errors import ClusterError

SECONDS_TO_ANSWER = 10.0
PORTS = {  # scheme -> its usual port
    "RAY_ADDRESS": {"": 6379, "ray": 10001},
    "PREFECT_API_URL": {"http": 80, "https": 443},
    "MLFLOW_TRACKING_URI": {"http": 80, "https": 443},
}


def check_addresses() -> None:
    """``check_address`` of every variable that names a server."""
    for variable in PORTS:
        check_address(variable)


def check_address(variable: str) -> None:
    """Ask the address that the environment variable names, if any, for a connection.

    Raises:
        ClusterError: if there is none, or the address cannot be read.
    """
    address, ports = os.environ.get(variable, ""), PORTS[variable]
    if not address or (variable == "RAY_ADDRESS" and address in ("auto", "local")):
        return
    advice = f"Start it, correct {variable}, or unset it to use the embedded one."
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if variable == "MLFLOW_TRACKING_URI" and parts.scheme not in ports:
            return  # a database or a file: its own client says what is wrong with it
        if parts.scheme not in ports:
            raise ValueError("not " + " or ".join(f"{scheme}://host" if scheme else "host:port" for scheme in ports))
        with socket.create_connection((parts.hostname or "", parts.port or ports[parts.scheme]), SECONDS_TO_ANSWER):
            return
    except (OSError, ValueError) as error:
        raise ClusterError(variable, address, f"an address that answers ({error})", advice) from None
