"""Networks as one file that times them on another machine: a Python zip application, networks and all.

Their weights are one short row of random numbers, repeated: what a network
takes does not depend on them, and so the file stays small.
"""

import inspect
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.costs import measure_files
from nas_core.costs.latency import CARRIED
from nas_core.costs.runtimes import exported
from nas_core.costs.timing import network_part
from nas_core.families.family import Family
from nas_core.space.genotypes import Genotype

PATTERN = 1024  # numbers that weights repeat
FIRST_LINE = b"#!/usr/bin/env python3\n"


def packed(
    family: Family,
    genotypes: Sequence[Genotype],
    settings: Any,
    about: Mapping[str, Any],
    tell: Callable[[int, int], object],
) -> bytes:
    """The file for the genotypes' networks, timed as the latency profiler's settings say; ``about`` goes with them.

    Raises:
        NasError: for a network that the runtime does not have operators for.
    """
    buffer = io.BytesIO(FIRST_LINE)
    buffer.seek(0, io.SEEK_END)
    part, listed = network_part(family, genotypes[0]), []
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", inspect.getsource(measure_files))
        for index, genotype in enumerate(genotypes):
            tell(index, len(genotypes))
            listed.append({"genotype": str(genotype), "file": f"{index}.{CARRIED[settings.runtime]}"})
            archive.writestr(listed[-1]["file"], _file(family, genotype, settings))
        how = {name: getattr(settings, name) for name in ("batch_size", "num_threads", "warmup", "repeats", "runtime")}
        takes = {"shape": list(part.shapes[0]), "dtype": part.dtype}
        archive.writestr(measure_files.MANIFEST, json.dumps({**about, **how, **takes, "networks": listed}, indent=1))
    return buffer.getvalue()


def _file(family: Family, genotype: Genotype, settings: Any) -> bytes:
    part = network_part(family, genotype)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network, pattern = part.build().eval(), 0.02 * torch.randn(PATTERN)
        for parameter in network.parameters():
            repeated = pattern.repeat(-(-parameter.numel() // PATTERN))[: parameter.numel()]
            parameter.copy_(repeated.reshape(parameter.shape))
        inputs = torch.zeros(settings.batch_size, *part.shapes[0], dtype=getattr(torch, part.dtype))
        if settings.runtime == "onnxruntime":
            return exported(network, [inputs], any_batch=True)
        return _program(network, inputs)


def _program(network: nn.Module, inputs: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.export.save(torch.export.export(network, (inputs,)), buffer)
    except Exception as error:  # torch raises nearly anything
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise NasError("torch.export", found, "a network that can be exported") from None
    return buffer.getvalue()
