"""What measuring latency asks of the machine: a runtime that is installed, CPUs for its threads. No torch here."""

from importlib.util import find_spec
from typing import Any

from nas_core.base.errors import ConfigError
from nas_core.base.machine import usable_cpus

WHERE = "profile.profilers.latency"
CUDA_GRAPH = "cuda-graph"  # the runtime that replays a network's kernels, all launched at once
# runtimes of ONNX files -> what they need
MODULES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


def check_here(config: Any) -> None:
    """Raises ConfigError where this machine cannot measure so: no such runtime, fewer CPUs than threads."""
    if config.num_threads > (have := usable_cpus()):
        advice = "They would wait for one another: affinity and the container's quota count, not the host's cores."
        expected = f"at most {have}, as this process may use"
        raise ConfigError(f"{WHERE}.num_threads", config.num_threads, expected, advice)
    check_installed(config.runtime)
    if config.runtime == CUDA_GRAPH and config.device == "cpu":
        raise ConfigError(f"{WHERE}.device", f"cpu with {CUDA_GRAPH}", "cuda or auto, as it is a GPU that has graphs")
    if is_of_files(config.runtime) and config.device == "cuda" and not on_cuda(config):
        expected = "cpu, or an ONNX Runtime for GPUs (onnxruntime-gpu)"
        raise ConfigError(f"{WHERE}.device", f"cuda with {config.runtime}", expected)


def check_installed(runtime: str) -> None:
    """Raises ConfigError where the runtime's packages are not installed; imports nothing."""
    missing = [name for name in MODULES.get(runtime, ()) if find_spec(name) is None]
    if missing:
        there = ["eager", "compile", CUDA_GRAPH, *(name for name in MODULES if all(map(find_spec, MODULES[name])))]
        package = "openvino" if missing == ["openvino"] else "'mathnas[export]'"
        advice = f"Install it: pip install {package}"
        found = f"{runtime}, without {', '.join(missing)}"
        raise ConfigError(f"{WHERE}.runtime", found, f"one that is installed: {', '.join(there)}", advice)


def is_of_files(runtime: str) -> bool:
    """Whether the runtime runs ONNX files, not modules of torch."""
    return runtime in MODULES


def needs_cuda(config: Any) -> bool:
    """Whether torch measures so on a GPU only."""
    return not is_of_files(config.runtime) and (config.device == "cuda" or config.runtime == CUDA_GRAPH)


def on_cuda(config: Any) -> bool:
    """Whether ONNX files run on a GPU."""
    return config.runtime == "onnxruntime" and config.device != "cpu" and has_cuda()


def has_cuda() -> bool:
    """Whether the ONNX Runtime that is installed can run networks on a GPU."""
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
