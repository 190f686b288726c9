"""Networks as ONNX files, and the sessions of ONNX Runtime and OpenVINO that run them.

B = examples of a batch, which is any number in a file that is written here.
"""

import importlib
import inspect
import io
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.fast_path import without_fast_path
from nas_core.base.silence import silence

Way = Literal["trace", "program"]  # what one run did; torch.export's graph
WAYS: tuple[Way, ...] = ("trace", "program")  # a trace is written in a tenth of the time, and ONNX Runtime fuses more
INPUT, OUTPUT = "inputs", "outputs"
COLOURS = re.compile("\x1b\\[[0-9;]*m")  # of terminals
_OPERATOR = re.compile(r"(?:No ONNX function found for <OpOverload\(op=|Exporting the operator )'([\w:.]+)'")


def onnx_bytes(network: nn.Module, inputs: Sequence[torch.Tensor], way: Way, *, any_batch: bool = True) -> bytes:
    """The network, in eval mode on the CPU, as the bytes of an ONNX file.

    ``inputs`` are examples B x ...; ``any_batch``: the file takes any B. Two
    ways lead there, and neither serves every network.

    Raises:
        NasError: naming the operator that ONNX lacks, or else why it is not possible.
    """
    names = [INPUT, *(f"{INPUT}_{index}" for index in range(1, len(inputs)))]
    named: dict[str, Any] = {"input_names": names, "output_names": [OUTPUT], "verbose": False}
    buffer = io.BytesIO()
    try:
        with ExitStack() as stack:
            stack.enter_context(silence(logs=True))
            stack.enter_context(patch.object(torch._C, "_jit_onnx_log"))  # it prints whole graphs
            stack.enter_context(torch.no_grad())
            stack.enter_context(without_fast_path())
            if way == "program":
                sizes: tuple[Any, ...] = tuple(
                    {0: torch.export.Dim("batch", min=1)} if any_batch else None for _ in inputs
                )
                sizes = (sizes,) if _takes_any_number(network) else sizes
                program = torch.onnx.export(network, tuple(inputs), dynamo=True, dynamic_shapes=sizes, **named)
                assert program is not None
                return bytes(program.model_proto.SerializeToString())
            axes = {name: {0: "batch"} for name in (*names, OUTPUT)} if any_batch else None
            named |= {"f": buffer, "dynamo": False, "dynamic_axes": axes}
            torch.onnx.export(network, tuple(inputs), **named)
    except Exception as error:  # torch, onnxscript and protobuf raise nearly anything
        raise NasError("ONNX", _in_words(error), "a network of operators that ONNX has") from None
    return buffer.getvalue()


def with_output_shape(data: bytes, shape: Sequence[int]) -> bytes:
    """The file, which says of which shape the output of an example is: a trace does not know it of all operators."""
    import onnx

    model = onnx.load_from_string(data)
    axes = model.graph.output[0].type.tensor_type.shape.dim[1:]
    for axis, size in zip(axes, shape, strict=len(axes) > 0):
        axis.dim_value = size
    return bytes(model.SerializeToString())


def _takes_any_number(network: nn.Module) -> bool:
    """Whether ``forward`` has one name, ``*args``, for all of its inputs, as that of an exported program has."""
    kinds = [each.kind for each in inspect.signature(network.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _in_words(error: Exception) -> str:
    """The operator that is missing, or the error's first words."""
    named = _OPERATOR.search(str(error))
    if named is not None:
        return f"the operator {named[1]}"
    return f"{type(error).__name__}: {' '.join(COLOURS.sub('', str(error)).split())[:200]}"


class Session:
    """An ONNX file run by ONNX Runtime, or by OpenVINO, with so many threads; takes and gives arrays."""

    def __init__(self, data: bytes, num_threads: int = 1, *, runtime: str = "onnxruntime", cuda: bool = False) -> None:
        self._run: Any = (
            _openvino(data, num_threads) if runtime == "openvino" else _onnxruntime(data, num_threads, cuda)
        )

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = self._run(inputs)
        return outputs


def _onnxruntime(data: bytes, num_threads: int, cuda: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.log_severity_level = 4  # what fails is raised, and said in words
    providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(data, options, providers=providers)
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _openvino(data: bytes, num_threads: int) -> Any:
    openvino = importlib.import_module("openvino")  # in no extra: who wants it installs it
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": num_threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(data), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda inputs: request.infer(list(inputs))[0]
