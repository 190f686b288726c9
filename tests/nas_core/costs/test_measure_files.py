"""The file that times networks elsewhere: what it needs there, and what it calls the machine."""

import ast
import csv
import inspect
import io
import json
import sys
import zipfile

import pytest
import torch
from torch import nn

from nas_core.costs import measure_files
from nas_core.costs.runtimes import exported

CUDA = "CUDAExecutionProvider"
HOW = {"asked": "", "purpose": "whole", "batch_size": 1, "num_threads": 1, "warmup": 1, "repeats": 3}
TAKES = {"shape": [4], "dtype": "float32", "networks": [{"genotype": "0", "file": "0"}]}


def rows_of(folder, monkeypatch, runtime, *arguments):
    """What the file's own ``main`` writes of one small network."""
    with zipfile.ZipFile(folder / "measure.pyz", "w") as archive:
        archive.writestr("0", exported(nn.Linear(4, 4).eval(), [torch.zeros(1, 4)], any_batch=True))
        archive.writestr(measure_files.MANIFEST, json.dumps({**HOW, **TAKES, "runtime": runtime}))
    monkeypatch.setattr(sys, "argv", [str(folder / "measure.pyz")])
    measure_files.main([*arguments, "--out", str(folder / "measured.csv")])
    return list(csv.DictReader(io.StringIO((folder / "measured.csv").read_text())))


@pytest.mark.situations
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_the_runtime_cannot_use_is_not_measured(tmp_path, monkeypatch):
    """It would take the CPU, with a warning."""
    assert [row["status"] for row in rows_of(tmp_path, monkeypatch, "onnxruntime")] == ["ok"]
    (row,) = rows_of(tmp_path, monkeypatch, "onnxruntime", "--provider", CUDA)
    assert row["status"] == "failed"
    assert row["message"].startswith(f"RuntimeError: ONNX Runtime has no {CUDA} here, only CPU")


@pytest.mark.situations
def test_programs_of_torch_have_no_provider(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        rows_of(tmp_path, monkeypatch, "eager", "--provider", CUDA)
    assert "--provider is of ONNX Runtime" in capsys.readouterr().err


def test_it_runs_on_pythons_before_3_10():
    """They have no ``zip(strict=)``, and no ``|`` of types where an annotation is evaluated."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(measure_files))))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    annotations = [each.annotation for node in functions for each in (*node.args.args, *node.args.kwonlyargs)]
    evaluated = [*annotations, *(node.returns for node in functions)]
    assert "strict" not in {node.arg for node in nodes if isinstance(node, ast.keyword)}
    assert not [part for each in evaluated if each for part in ast.walk(each) if isinstance(part, ast.BitOr)]
