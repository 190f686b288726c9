"""Makes torchvision, and timm which imports it, importable where torchvision does not match torch.

On import torchvision registers shape functions for its operators ``nms`` and
``qnms``. Where torch is a CPU build and torchvision is not (a common outcome of
installing the two from different indexes), the library that defines those
operators does not load and the import stops with ``operator torchvision::nms
does not exist``. Nothing here calls them, so it is enough to define their names
first.
"""

import importlib.util
from pathlib import Path

import torch

_DETECTION_OPERATORS = ("nms", "qnms")
_library: torch.library.Library | None = None  # the definitions live as long as this object


def define_missing_operators() -> None:
    """Define the operator names torchvision needs to be importable, where its own library does not load.

    Call before the first import of torchvision or timm in a process; later calls do nothing.
    """
    global _library
    if _library is not None or _torchvision_library_loads():
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _DETECTION_OPERATORS:
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]


def _torchvision_library_loads() -> bool:
    """Whether the real operators exist (or there is no torchvision that would want them)."""
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    try:  # the file torchvision itself loads on import; loading it twice is harmless
        for path in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except (OSError, ImportError):
        return False
    return hasattr(torch.ops.torchvision, "nms")
