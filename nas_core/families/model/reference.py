"""A trained model by its name: made, its weights read, and what is known of its preparation.

``timm:NAME`` is a model of timm's, ``package.module:factory`` a function of the
user's own that returns one, ``mlflow:NAME@alias`` a model that MLflow has,
``FILE.pt2`` an exported program.
"""

import hashlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import DataError, NasError
from nas_core.base.fetching import FETCHERS
from nas_core.base.identity import content_id
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.model import rebuild
from nas_core.families.model.checkpoints import PROGRAM, load_weights, not_finite, what_it_is
from nas_core.families.model.layers_again import for_any_runtime, with_layers, with_tensors_first
from nas_core.families.model.source import hash_of_source, hash_of_weights

from timm.models import is_model  # isort: skip

WHERE = "space.model"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where a trained model comes from, and what it is made for."""

    model: str
    checkpoint: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    num_outputs: int
    in_channels: int
    side: int | None = None  # of the images, pixels; None where inputs are no images
    tuples: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # how modules are called (``rebuild.untupled``)
    cut: Sequence[str] = ()  # where the model is cut into parts (``rebuild.cut``); empty: it is as its maker made it
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)  # how many modules of a sequence stand together

    @property
    def made_by(self) -> dict[str, Any]:
        """What ``rebuild.made`` makes the model of, without its weights."""
        whole = {"name": self.model, "arguments": {**self._asked_for(), **self.arguments}}
        whole |= {"tuples": {path: list(form) for path, form in self.tuples.items()}} if self.tuples else {}
        whole |= {"cut": list(self.cut)} if self.cut else {}
        return whole | ({"rows": {path: list(counts) for path, counts in self.rows.items()}} if self.rows else {})

    @property
    def is_timm(self) -> bool:
        return self.model.startswith("timm:")

    @cached_property
    def has_weights(self) -> bool:
        """Whether the model has weights that stay: not where a function draws them anew each time."""
        is_made = ":" in self.model and not self.is_timm and not self.model.startswith("mlflow:")
        if self.checkpoint is not None or not is_made:
            return True
        return weights_hash(self._whole()) == weights_hash(self._whole())

    def _asked_for(self) -> dict[str, Any]:
        """Channels and outputs, for a maker that has parameters of these names."""
        if self.is_timm:
            return {"num_classes": self.num_outputs, "in_chans": self.in_channels, **self._side()}
        if ":" not in self.model:
            return {}
        try:
            parameters = inspect.signature(rebuild.factory_of(self.model)).parameters
        except Exception:  # a user's own code: what it raises is said when the model is made
            return {}
        known = {"in_channels": self.in_channels, "in_chans": self.in_channels}
        known |= dict.fromkeys(("num_outputs", "num_classes"), self.num_outputs)
        takes_all = self.model.startswith("torchvision.")  # its makers pass what they do not name on to the model
        named = ("num_classes", *parameters) if takes_all else tuple(parameters)
        return {name: value for name, value in known.items() if name in named}

    def _side(self) -> dict[str, Any]:
        """``img_size`` for models that have to know it."""
        import timm

        name = self.model.removeprefix("timm:")
        if self.side is None or not is_model(name):
            return {}
        known = timm.get_pretrained_cfg(name)
        if known is None or not known.fixed_input_size or known.input_size[-1] == self.side:
            return {}
        return {"img_size": self.side}

    def fresh(self) -> nn.Module:
        """The model with the weights that its maker gives it, in eval mode.

        Raises:
            NasError: for a name that nobody knows, or a maker that fails.
        """
        return self.arranged(self._whole())

    def arranged(self, network: nn.Module) -> nn.Module:
        """The network as positions need it, of the same modules: out of tuples, cut into parts, with rows of blocks."""
        network = rebuild.untupled(rebuild.plain(network), self.tuples)
        if not self.cut and not self.rows:
            return network
        parts = rebuild.cut(network, self.cut) if self.cut else network
        return rebuild.in_rows(parts, self.rows).eval()

    @cached_property
    def shared(self) -> dict[str, int]:
        """How many numbers each weight has that another layer has, too, as the model is made; by its name."""
        network = self._whole()
        own = {name for name, _ in network.named_parameters()}
        named = network.named_parameters(remove_duplicate=False)
        return {name: weight.numel() for name, weight in named if name not in own}

    def _whole(self) -> nn.Module:
        network = self._made()
        if layers := _quantised(network):
            found = f"a quantised network ({', '.join(layers[:3])})"
            raise NasError(f"{WHERE} {self.model}", found, "the network as it was before it was quantised")
        return network

    def _made(self) -> nn.Module:
        scheme, _, rest = self.model.partition(":")
        if self.is_timm and not is_model(rest):
            raise NasError(WHERE, repr(self.model), "a model of timm's", "timm.list_models() names them.")
        if scheme == "mlflow" and "models" in FETCHERS:
            return _as_module(rebuild.uncompiled(FETCHERS["models"](f"models:/{rest}")))
        if self.model.endswith(".pt2"):
            return _program(self.model)
        if not rest:
            expected = "timm:NAME, package.module:factory, FILE.py:factory, mlflow:NAME@alias or FILE.pt2"
            raise NasError(WHERE, repr(self.model), expected, _beside(self.model))
        try:
            network = rebuild.whole(self.made_by)
        except Exception as error:  # a user's own code, or timm's for arguments it does not take
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise NasError(f"{WHERE} {self.model}", found, "a model that can be made", _beside(self.model)) from None
        return network.eval()

    def check(self) -> None:
        """Raises DataError if the weights are not there; cheap."""
        if self.checkpoint is None and self.is_timm:
            advice = "Name the file of your trained weights (.safetensors, .pth): space.checkpoint, or --checkpoint."
            raise DataError(f"{WHERE} {self.model}", "no checkpoint", "a file of trained weights", advice)
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            expected = "a file of trained weights (.safetensors, .pth)"
            raise DataError(f"space.checkpoint {self.checkpoint}", "no file", expected)

    def check_weights(self) -> None:
        """Raises DataError if a function draws the weights anew each time; makes the model twice."""
        if not self.has_weights:
            advice = "Name the file of your trained weights (.safetensors, .pth): space.checkpoint, or --checkpoint."
            raise DataError(f"{WHERE} {self.model}", "other weights each time it is made", "trained weights", advice)

    def trained(self) -> nn.Module:
        """The model with its trained weights, in eval mode; nothing of it wants gradients.

        Raises:
            DataError: if there are no weights, or they are of another model.
        """
        self.check()
        network = self._whole()
        if self.checkpoint is not None:
            expected = f"weights of {self.model} for {self.in_channels} channels and {self.num_outputs} outputs"
            load_weights(network, self.checkpoint, expected)
        else:
            self.check_weights()
            _check_finite(network, f"{WHERE} {self.model}")
        return self.arranged(network).requires_grad_(False)

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """What networks made of the model depend on beside their blocks: its weights, and what computes with them."""
        known = {"weights": self.code, "model": self.computation}
        known["arguments"] = content_id(dict(self.arguments)) if self.arguments else ""
        return tuple((name, value) for name, value in known.items() if value or name == "weights")

    @cached_property
    def computation(self) -> str:
        """Hash of a Python file's text with that of what it imports beside it, or of a program; "" of timm's models."""
        if found := hash_of_source(self.model):
            return found
        if self.model.endswith(".pt2") or self.model.startswith("mlflow:"):
            network = self._whole()
            graphs = [str(part.graph) for part in network.modules() if hasattr(part, "graph")]
            return content_id({"modules": re.sub(" at 0x[0-9a-f]+", "", repr(network)), "graphs": graphs})
        return ""

    @property
    def code(self) -> str:
        """Hash of the weights: another file, another space."""
        if self.checkpoint is not None and Path(self.checkpoint).is_file():
            return hash_of_weights(self.checkpoint)
        if self.is_timm or not self.has_weights:
            return ""
        return weights_hash(self.trained())


def _beside(model: str) -> str:
    """What of a folder that `mathnas export` wrote is a model, where the folder or another file of it is named."""
    named = Path(model.rpartition(":")[0] or model)
    folder = named if named.is_dir() else named.parent
    program = folder / rebuild.PROGRAM
    is_ours = program.is_file() and (folder / rebuild.DESCRIPTION).is_file()
    return f"Name {program}, which lies there." if is_ours else ""


def _program(path: str) -> nn.Module:
    """The modules that an exported program was made of."""
    where, expected = f"{WHERE} {path}", "a program that torch.export.save wrote"
    if not Path(path).is_file():
        raise DataError(where, "no file", expected)
    try:
        with _unlogged("torch.export", "torch._export"):  # they tell the whole way to what is one line here
            network = _as_module(torch.export.load(path))
    except Exception:  # torch raises whatever the file makes it raise
        found = what_it_is(Path(path)) or "a file that torch.export.load cannot read"
        if found == PROGRAM:
            found += f" that is damaged, or that torch {torch.__version__} cannot read"
        raise DataError(where, found, expected) from None
    _check_finite(network, where)
    return network


def _quantised(network: nn.Module) -> list[str]:
    """The paths of torch's quantised layers, which hold no weights that anything could be made of."""
    modules = ((path or "all of it", type(module).__module__) for path, module in network.named_modules())
    return [
        path
        for path, module in modules
        if module.startswith("torch.") and "quantized" in module
        if not module.endswith("functional_modules")  # sums that can be quantised, and are not yet
        if not path.endswith("_packed_params")  # inside the layers
    ]


def _check_finite(network: nn.Module, where: str) -> None:
    if broken := not_finite(network):
        raise DataError(where, f"weights that are NaN or infinite ({', '.join(broken[:3])})", "finite weights")


@contextmanager
def _unlogged(*names: str) -> Iterator[None]:
    """Nothing of these loggers is shown meanwhile."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _as_module(model: Any) -> nn.Module:
    """A module with the structure that it had before it was exported, if it was."""
    if isinstance(model, torch.export.ExportedProgram):
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # torch's own use of it, each time it is copied
        unflattened = with_tensors_first(for_any_runtime(torch.export.unflatten(model)))
        program = with_layers(unflattened)
        for part in program.modules():  # examples of every value, which cannot be copied
            for node in getattr(getattr(part, "graph", None), "nodes", ()):
                node.meta.clear()
        return program
    module: nn.Module = model
    return module if isinstance(module, torch.fx.GraphModule) else module.eval()


def weights_hash(network: nn.Module) -> str:
    """Hash of every parameter and buffer, by name; what else a module keeps in its state is none of its weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
