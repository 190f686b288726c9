"""The servers that environment variables name: do they answer, and are they of a version that we can speak with?"""

import base64
import os
import re
import socket
import urllib.error
import urllib.request
from importlib.metadata import version
from urllib.parse import urlsplit

from nas_core.base.errors import ClusterError

SECONDS_TO_ANSWER = 10.0
FRAME_HEAD_BYTES, SETTINGS_FRAME = 9, 4  # of HTTP/2
PORTS = {  # scheme -> its usual port
    "RAY_ADDRESS": {"": 6379, "ray": 10001},
    "PREFECT_API_URL": {"http": 80, "https": 443},
    "MLFLOW_TRACKING_URI": {"http": 80, "https": 443},
}
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # that MLflow takes in place of a server
VERSIONS = {  # variable -> package, the path where its servers say their version, the variables of name and password
    "PREFECT_API_URL": ("prefect", "/admin/version", ("PREFECT_API_AUTH_STRING",)),
    "MLFLOW_TRACKING_URI": ("mlflow", "/version", ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")),
}


def names_cluster() -> bool:
    """Whether the environment names a Ray cluster; else a local one is started."""
    return os.environ.get("RAY_ADDRESS") not in (None, "", "local")


def check_addresses() -> None:
    """``check_address`` of every variable that names a server, and ``check_version``."""
    for variable in PORTS:
        check_address(variable)
    for variable in VERSIONS:
        check_version(variable)


def _check_speaks_grpc(connection: socket.socket) -> None:
    """Whether who listens is of Ray's kind; its own client would ask anybody else for minutes.

    gRPC is HTTP/2: both sides begin with a frame of settings (RFC 9113, section 3.4).
    """
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0]))
    answer = connection.recv(FRAME_HEAD_BYTES, socket.MSG_WAITALL)
    if len(answer) < FRAME_HEAD_BYTES or answer[3] != SETTINGS_FRAME:
        raise ValueError("who listens there is no Ray")


def check_version(variable: str) -> None:
    """Ask the server that the variable names, if any, for its version; one that keeps it to itself is not judged.

    Raises:
        ClusterError: if it is of another major version, or an address that answers with a page.
    """
    address = os.environ.get(variable, "").rstrip("/")
    package, path, credentials = VERSIONS[variable]
    if not address.startswith(("http://", "https://")):
        return
    said = _answer(address + path, ":".join(filter(None, map(os.environ.get, credentials))))
    answered, ours = re.match(r'"?(\d+)\.\d+\S*', said), version(package)
    if answered is None:
        if variable == "PREFECT_API_URL" and "<html" in said.lower():
            raise ClusterError(variable, f"{address}, a page", "Prefect's API, an address that ends in /api")
        return
    if answered[1] != ours.partition(".")[0]:
        found, advice = answered[0].strip('"'), f"Install that server's version, or ask one of {package} {ours}."
        raise ClusterError(variable, f"{package} {found} at {address}", f"{package} {ours.partition('.')[0]}", advice)


def _answer(url: str, credentials: str) -> str:
    """The beginning of what is answered; "" where nothing fit to read is."""
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as response:
            return str(response.read(2000).decode(errors="replace")).strip()
    except (OSError, ValueError, urllib.error.URLError):
        return ""


def check_address(variable: str, address: str | None = None) -> None:
    """Ask the address that the environment variable names, if any, for a connection; ``address`` is what it stands for.

    Raises:
        ClusterError: if there is none, or the address cannot be read.
    """
    address, ports = os.environ.get(variable, "") if address is None else address, PORTS[variable]
    if not address or (variable == "RAY_ADDRESS" and address in ("auto", "local")):
        return
    advice = f"Start it, correct {variable}, or unset it to use the embedded one."
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if variable == "MLFLOW_TRACKING_URI" and parts.scheme not in ports:
            ports = {parts.scheme: DATABASES.get(parts.scheme.partition("+")[0], 0)}
            if not parts.hostname or not (parts.port or ports[parts.scheme]):
                return  # a file: its own client says what is wrong with it
        if parts.scheme not in ports:
            raise ValueError("not " + " or ".join(f"{scheme}://host" if scheme else "host:port" for scheme in ports))
        place = parts.hostname or "", parts.port or ports[parts.scheme]
        with socket.create_connection(place, SECONDS_TO_ANSWER) as connection:
            if variable == "RAY_ADDRESS" and not os.environ.get("RAY_USE_TLS"):
                _check_speaks_grpc(connection)
    except (OSError, ValueError) as error:
        raise ClusterError(variable, address, f"an address that answers ({error})", advice) from None
