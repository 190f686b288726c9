"""README's section "From Python", cell by cell in a notebook: a kernel whose event loop runs."""

import os
import re
from pathlib import Path

import pytest

from tests.conftest import config_of

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

README = Path(__file__).parents[1] / "README.md"
CHECKS = """
import asyncio
assert asyncio.get_event_loop().is_running()
assert {"genotype", "metric", "role", "flops"} <= set(evaluations.columns)
assert len(effects) == sum(study.space.num_choices)
assert answer.selections and answer.status == "optimal"
assert prediction.low <= prediction.metric <= prediction.high
assert frontier.axes
import torch
assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
print("all there")
"""


def section(title: str) -> str:
    """The Python of a section of the README."""
    text = README.read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


def test_the_section_runs_as_a_notebook(tmp_path):
    (tmp_path / "study.yaml").write_bytes(config_of(verify={"evaluations": 0}).as_yaml())
    cells = [part for part in section("From Python").split("\n\n") if part.strip()]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, CHECKS]])
    hidden = ("RAY_ADDRESS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    client = nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    done = client.execute(
        env={**environment, "PYTHONPATH": str(README.parent), "IPYTHONDIR": str(tmp_path / "ipython")}
    )
    assert "all there" in done.cells[-1].outputs[-1].text
