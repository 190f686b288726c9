"""The latency profiler's identity, wherever its runtime comes from."""

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

import nas_core
from tests.fresh import fresh_python

IDENTITY = """
import sys; sys.path.append(sys.argv[1])
from nas_core.costs import PROFILERS, ProfileConfig
print(PROFILERS["latency"](ProfileConfig(runtime="onnxruntime").profilers["latency"]).identity["onnxruntime"])
"""


@pytest.mark.situations
def test_onnx_runtime_may_come_as_its_package_for_gpus(tmp_path):
    python = fresh_python(tmp_path / "fresh", ["mathnas", "onnx", "onnxruntime", "onnxscript", "torch"])
    (own,) = (tmp_path / "fresh").rglob("onnxruntime-*.dist-info")
    version = importlib.metadata.version("onnxruntime")
    own.unlink()  # the link
    other = own.with_name(f"onnxruntime_gpu-{version}.dist-info")
    other.mkdir()
    (other / "METADATA").write_text(f"Name: onnxruntime-gpu\nVersion: {version}\n")
    (other / "top_level.txt").write_text("onnxruntime\n")
    command = [python, "-I", "-c", IDENTITY, str(Path(nas_core.__file__).parents[1])]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert said.stdout.strip() == version
