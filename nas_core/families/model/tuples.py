"""Modules that give a tuple with one tensor in it, as layers of many libraries do: ``(hidden,)``, ``(outputs, None)``.

What stands at a position gives a tensor, so such a module is taken out of its
tuple where the model hears nothing of that.
"""

import copy
from contextlib import ExitStack, suppress
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn

from nas_core.families.model.rebuild import untupled
from nas_core.families.model.swapping import reasons_against
from nas_core.families.model.tracing import Inputs, copied, evaluating

FRAME, INSIDE = ".bare", ".full"  # what `rebuild.untupled` adds to the paths of a module, and of what is in it
Form = tuple[int, int]  # the tuple's length, and the tensor's place in it
NO_FORM = (0, 0)


def tuples_of(model: nn.Module, inputs: Inputs) -> dict[str, Form]:
    """Path of a module -> the form of its tuple.

    The model itself is changed as ``rebuild.untupled`` says, and gives what it gave, bit for bit.
    """
    found: dict[str, Form] = {}
    forms = _forms(model, inputs)
    for _, paths in groupby(sorted(forms, key=_depth, reverse=True), _depth):  # of these none is inside another
        level = list(paths)
        reasons = reasons_against(model, inputs, level)
        found |= {path: forms[path] for path in level if path not in reasons}
        untupled(model, {path: forms[path] for path in level if path not in reasons})
    return found


def without_frames(path: str) -> str:
    """A module's path as the model's maker knows it."""
    return path.replace(FRAME + INSIDE, "").removesuffix(FRAME)


def _depth(path: str) -> int:
    return path.count(".")


def _forms(model: nn.Module, inputs: Inputs) -> dict[str, Form]:
    """The modules that take a tensor and give a plain tuple of one tensor and nothing else but None; also in training.

    A model that does not run in training mode on these inputs is looked at in evaluation mode alone.
    """
    with evaluating(model):
        forms = _forms_now(model, inputs)
    if all(form == NO_FORM for form in forms.values()):
        return {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        learning = _forms_now(copy.deepcopy(model).train(), inputs)
    return {path: form for path, form in forms.items() if form != NO_FORM and learning.get(path, form) == form}


def _forms_now(model: nn.Module, inputs: Inputs) -> dict[str, Form]:
    """As ``_forms``, in the mode that the model is in; ``NO_FORM`` of modules that give something else."""
    forms: dict[str, Form] = {}

    def note(path: str, module: nn.Module, taken: tuple[Any, ...], given: Any) -> None:
        places = [place for place, each in enumerate(given) if each is not None] if type(given) is tuple else []
        is_one = len(places) == 1 and isinstance(given[places[0]], torch.Tensor)
        takes_one = bool(taken) and isinstance(taken[0], torch.Tensor)
        forms[path] = (len(given), places[0]) if is_one and takes_one else NO_FORM

    with ExitStack() as stack, suppress(Exception):  # one that does not run is told of elsewhere
        for path, module in model.named_modules():
            if path:
                stack.callback(module.register_forward_hook(partial(note, path)).remove)
        model(copied(inputs))
    return forms
