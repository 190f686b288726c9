"""A teacher for distillation: timm's model with a file of weights, a stored program, or a model known by a URI.

It is asked about the student's prepared inputs; what its own preparation wants is made from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import DataError, NasError
from nas_core.base.fetching import FETCHERS
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.training.export import load_exported
from nas_core.training.layout import IMAGE_AXES
from nas_core.training.settings import OWN, TeacherConfig
from nas_core.workloads.images.tensors import resized
from nas_core.workloads.normalisation import Normalisation, broadcast

from timm.models import create_model, is_model, load_checkpoint  # isort: skip

WHERE = "recipe.teacher"


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """The trained model that networks are made of, when it is asked for; it takes what they take.

    At ``places``, paths of its modules, a network has what is to give nearly the same.
    """

    network: Callable[[], nn.Module]
    places: Sequence[str] = ()


def load_teacher(
    settings: TeacherConfig,
    num_outputs: int,
    shape: Sequence[int],
    prepare: Normalisation,
    device: torch.device,
    own_model: OwnModel | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The teacher as a function of inputs that ``prepare`` made, of this shape.

    ``own_model`` is the one that ``OWN`` means.

    Raises:
        DataError: if a file is missing or does not hold what it should.
        NasError: for a model that nobody knows or that does not take such inputs, or a URI that cannot be reached
            from here.
    """
    if settings.model == OWN:
        return _own(own_model, device)
    if scheme := fetched_by(settings):
        fetched, own = FETCHERS[scheme](settings.model), Normalisation()
        module = fetched.module() if isinstance(fetched, torch.export.ExportedProgram) else fetched
    elif settings.model.endswith(".pt2"):
        module, own = _program(settings.model), Normalisation()
    else:
        module, own = _of_timm(settings, num_outputs, shape[0])
    module = module.to(device)
    if not isinstance(module, torch.fx.GraphModule):  # a program has no modes: it was made in eval mode
        module.eval()
    back, axes = prepare if prepare.mean else None, 1 + len(shape)

    def teach(inputs: torch.Tensor) -> torch.Tensor:
        plain = _raw(inputs, back, axes)
        if settings.resolution is not None:
            plain = resized(plain, settings.resolution)
        with torch.no_grad():
            outputs: torch.Tensor = module(_normalised(plain, own, axes))
        return outputs.float()

    try:
        teach(torch.zeros(2, *shape, device=device))
    except Exception as error:  # a model raises whatever it likes for inputs of other shapes
        inputs = " x ".join(map(str, shape))
        found = f"{settings.model}, which says of inputs of {inputs}: {' '.join(str(error).split())[:200]}"
        raise NasError(f"{WHERE}.model", found, f"a model that takes inputs of {inputs}") from None
    return teach


def fetched_by(settings: TeacherConfig) -> str:
    """The scheme of the URI that the teacher is known by; "" where it is on this machine.

    Raises:
        NasError: for a scheme that nobody here fetches.
    """
    scheme, _, rest = settings.model.partition(":")
    if rest and scheme not in FETCHERS:
        expected = f"a file, a model of timm's, or one of: {', '.join(f'{each}:/...' for each in sorted(FETCHERS))}"
        raise NasError(f"{WHERE}.model", repr(settings.model), expected)
    return scheme if rest else ""


def _own(own: OwnModel | None, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    if own is None:
        raise NasError(f"{WHERE}.model", OWN, "another teacher: this network was not made of a trained model")
    module = own.network().to(device)

    def teach(inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs: torch.Tensor = module(inputs.clone())  # it may work in place; the student takes them, too
        return outputs.float()

    return teach


def _raw(inputs: torch.Tensor, prepare: Normalisation | None, axes: int) -> torch.Tensor:
    """What the normalisation was given: images in [0, 1], where noise of an erased part would leave that range."""
    raw = inputs
    if prepare is not None:
        mean, std = (broadcast(inputs.new_tensor(values), axes) for values in (prepare.mean, prepare.std))
        raw = inputs * std + mean
    return raw.clamp(0, 1) if axes == IMAGE_AXES else raw


def _normalised(inputs: torch.Tensor, prepare: Normalisation, axes: int) -> torch.Tensor:
    if not prepare.mean:
        return inputs
    mean, std = (broadcast(inputs.new_tensor(values), axes) for values in (prepare.mean, prepare.std))
    return (inputs - mean) / std


def _program(path: str) -> nn.Module:
    try:
        return load_exported(Path(path).read_bytes())
    except Exception as error:  # torch raises whatever the file makes it raise
        raise DataError(
            f"{WHERE}.model {path}", str(error)[:200], "a program (.pt2) as trained networks have"
        ) from None


def _of_timm(settings: TeacherConfig, num_outputs: int, in_channels: int) -> tuple[nn.Module, Normalisation]:
    """timm's model with the file's weights, and the normalisation that timm's configuration of it names."""
    if not is_model(settings.model):
        expected = "a model of timm's, a program (.pt2), or a model's URI"
        raise NasError(f"{WHERE}.model", repr(settings.model), expected, "timm.list_models() names them.")
    assert settings.checkpoint is not None, "the settings refuse a model without weights"
    sizes: dict[str, Any] = {} if settings.resolution is None else {"img_size": settings.resolution}
    try:
        module = create_model(settings.model, num_classes=num_outputs, in_chans=in_channels, **sizes)
    except TypeError:  # most models take images of any size and no word of it
        module = create_model(settings.model, num_classes=num_outputs, in_chans=in_channels)
    try:
        load_checkpoint(module, settings.checkpoint, weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever the file makes them raise
        expected = f"weights of {settings.model} for {in_channels} channels and {num_outputs} outputs"
        raise DataError(f"{WHERE}.checkpoint {settings.checkpoint}", str(error)[:200], expected) from None
    known = module.pretrained_cfg
    mean, std = known["mean"], known["std"]
    if len(mean) != in_channels:
        mean, std = (tuple([sum(each) / len(each)] * in_channels) for each in (mean, std))
    return module, Normalisation(mean=tuple(mean), std=tuple(std))
