"""An S3 server (moto's) in a process of its own on 127.0.0.1, and a tap in front of it that can be closed."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from urllib.parse import quote

from flows.prefect_server import _end_with_parent, _free_port

SECRET = "planted-secret-key-0123456789"


class S3Server:
    """Use as a context manager; ``environment`` is what a client needs."""

    def __enter__(self) -> "S3Server":
        self.port = _free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_end_with_parent
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/moto-api/", timeout=2):
                    return self
            except OSError:
                assert time.monotonic() < deadline, "moto's server did not start"
                assert self.process.poll() is None
                time.sleep(0.2)

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "mathnas",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self, bucket: str, path: str = "study", port: int | None = None) -> str:
        """A new bucket's URI, with the server's address."""
        with self.credentials():
            import boto3

            address = f"http://127.0.0.1:{self.port}"
            boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket=bucket)
        endpoint = quote(f"127.0.0.1:{port or self.port}", safe="")
        return f"s3://{bucket}/{path}?scheme=http&endpoint_override={endpoint}"

    @contextlib.contextmanager
    def credentials(self):
        """The variables above in this process."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value


class Tap:
    """Passes connections on to a port of this machine; while ``closed`` it drops them."""

    def __init__(self, port: int) -> None:
        self.target, self.closed = port, False

    def __enter__(self) -> "Tap":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.closed:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.closed:
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.close()
