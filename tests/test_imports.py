"""What may be imported where, checked in fresh processes: the linter sees imports inside functions too."""

import subprocess
import sys

import pytest


def loaded_by(module):
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["nas_core.program", "nas_core.study.study", "nas_core.report.collect", "flows.cli"])
def test_selecting_loads_no_framework(module):
    assert not {"torch", "timm", "ray", "prefect", "mlflow"} & loaded_by(module)


def test_docker_and_infra_are_no_packages(pytestconfig):
    assert not list((pytestconfig.rootpath / "docker").rglob("*.py")) + list(
        (pytestconfig.rootpath / "infra").rglob("*.py")
    )
