"""Servers that are named: of another version, of another kind, or not there at all."""

import contextlib
import http.server
import socket
import threading
from importlib.metadata import version

import pytest

from nas_core.base.errors import ClusterError
from tasks.addresses import check_address, check_addresses, check_version

pytestmark = pytest.mark.situations


@contextlib.contextmanager
def server(answers, status=200):
    """A server that answers these paths, as somebody else's would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_another_mlflow_is_named_with_the_one_that_is_needed(monkeypatch):
    with server({"/version": "2.22.1"}) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(ClusterError) as refused:
            check_addresses()
    assert f"found mlflow 2.22.1 at {url}, expected mlflow {version('mlflow').partition('.')[0]}" in str(refused.value)


def test_another_prefect_is_named_with_the_one_that_is_needed(monkeypatch):
    with server({"/api/admin/version": '"2.20.3"'}) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api/")
        with pytest.raises(ClusterError, match=r"found prefect 2\.20\.3 at .*, expected prefect 3"):
            check_version("PREFECT_API_URL")


def test_prefects_page_is_not_its_api(monkeypatch):
    with server({"/admin/version": "<!DOCTYPE html><html></html>"}) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(ClusterError, match="ends in /api"):
            check_version("PREFECT_API_URL")


@pytest.mark.parametrize(
    ("answers", "status"),
    [({}, 200), ({"/version": "no"}, 401), ({"/version": "nightly"}, 200), ({"/version": version("mlflow")}, 200)],
)
def test_a_server_that_keeps_its_version_to_itself_is_not_judged(monkeypatch, answers, status):
    with server(answers, status) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        check_addresses()


def test_an_address_that_nobody_has_is_said_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ClusterError, match="unset it to use the embedded one"):
        check_address("RAY_ADDRESS")


def test_who_listens_at_rays_address_may_be_no_ray(monkeypatch):
    monkeypatch.setattr("tasks.addresses.SECONDS_TO_ANSWER", 0.3)
    with server({}) as url, socket.create_server(("127.0.0.1", 0)) as silent:
        for port, words in ((url.rpartition(":")[2], "no Ray"), (silent.getsockname()[1], "timed out")):
            for scheme in ("", "ray://"):
                monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{port}")
                with pytest.raises(ClusterError, match=words):
                    check_address("RAY_ADDRESS")


def test_a_ray_is_known_as_one(cluster, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    check_address("RAY_ADDRESS")
