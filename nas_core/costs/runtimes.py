"""What runs a network while it is timed: torch itself, its compiler, a CUDA graph, ONNX Runtime, OpenVINO.

A network is compiled, captured or exported once per process and kept. B = examples of a batch.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.onnx_files import WAYS, Session, onnx_bytes
from nas_core.costs.conditions import CUDA_GRAPH, on_cuda

WARM = 3  # runs before a graph is captured
MAX_KEPT_BYTES = 2**31  # of exported files


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Run:
    """Something to time: what is called with which inputs, and what is done untimed before."""

    call: Callable[..., Any]
    inputs: Sequence[Any]
    before: Callable[[], object] = _nothing


def settled(run: Run) -> Run:
    """The run of a whole network, which runs once more before it is timed (``timing`` says why)."""

    def before() -> None:
        run.before()
        run.call(*run.inputs)

    return replace(run, before=before)


def run_of(
    network: nn.Module, inputs: Sequence[torch.Tensor], config: Any, key: Hashable = None, *, any_batch: bool = False
) -> Run:
    """The network, in eval mode on its device, as the runtime runs it; ``key`` is what its file is kept under.

    Raises:
        NasError: for an operator that the runtime does not have.
    """
    if config.runtime == "eager":
        return Run(call=network, inputs=inputs)
    if config.runtime == "compile":
        return Run(call=_compiled(network, inputs), inputs=inputs)
    if config.runtime == CUDA_GRAPH:
        return Run(call=_captured(network, inputs), inputs=inputs)
    data = _KEPT.get(key) or exported(network, inputs, any_batch)
    if key is not None:
        _KEPT.keep(key, data)
    return run_of_file(data, inputs, config)


def _compiled(network: nn.Module, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """The network compiled, as a graph of its own: torch looks through all networks of one class at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own use of what it will drop
        compiled: Callable[..., Any] = torch.compile(program_of(network, inputs), dynamic=False)
        with torch.inference_mode():
            compiled(*inputs)  # it is compiled when it is called first
    return compiled


def program_of(network: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """What the network does with such inputs, without the weights of blocks that it has and has not chosen.

    What torch compiles looks at every weight that it reads at every call.
    """
    program = torch.export.export(network, tuple(inputs)).module()
    program.graph.eliminate_dead_code()
    program.recompile()
    return program


def _captured(network: nn.Module, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """The network's kernels as one CUDA graph of these inputs: its time without that of launching them one by one."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(WARM):  # what libraries set up at first cannot be captured
            network(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.inference_mode(), torch.cuda.graph(graph):
        network(*inputs)
    return lambda *_: graph.replay()


def run_of_file(data: bytes, inputs: Sequence[torch.Tensor], config: Any) -> Run:
    """An ONNX file as the runtime, which is one of files, runs it."""
    session = Session(data, config.num_threads, runtime=config.runtime, cuda=on_cuda(config))
    return Run(call=session, inputs=[each.cpu().numpy() for each in inputs])


def exported(network: nn.Module, inputs: Sequence[torch.Tensor], any_batch: bool) -> bytes:
    """The network's ONNX file, made in the first way that leads to one; raises NasError if none does."""
    for way in WAYS:
        try:
            return onnx_bytes(network, inputs, way, any_batch=any_batch)
        except NasError as error:
            refused = error
    raise refused


class _Kept:
    """Files of this process, the last used ones, within a number of bytes."""

    def __init__(self) -> None:
        self._files: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        if key not in self._files:
            return None
        self._files.move_to_end(key)
        return self._files[key]

    def keep(self, key: Hashable, data: bytes) -> None:
        self._files[key] = data
        while len(self._files) > 1 and sum(map(len, self._files.values())) > MAX_KEPT_BYTES:
            self._files.popitem(last=False)


_KEPT = _Kept()
