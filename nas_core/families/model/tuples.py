"""Modules that are called as layers of many libraries are: ``hidden, _ = layer(hidden_states=hidden, mask=None)``.

What stands at a position takes a tensor first and gives one. So a module that
gives a tuple with one tensor in it is taken out of its tuple, and one whose
first argument is given by name gets it first, where the model hears nothing of that.
"""

import copy
from contextlib import ExitStack, suppress
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn

from nas_core.families.model.rebuild import untupled
from nas_core.families.model.swapping import first_argument, first_name, reasons_against
from nas_core.families.model.tracing import Inputs, copied, evaluating

FRAME, INSIDE = ".bare", ".full"  # what `rebuild.untupled` adds to the paths of a module, and of what is in it
# the tuple's length (0: none) and the tensor's place in it; the first argument's name where it is given by that
Form = tuple[int, int] | tuple[int, int, str]
NO_FORM = (0, 0)  # a tensor in and out, or something else altogether


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
    """The modules that take a tensor by name, or give a plain tuple of one and nothing else but None; also in training.

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

    def note(path: str, module: nn.Module, taken: tuple[Any, ...], named: dict[str, Any], given: Any) -> None:
        places = [place for place, each in enumerate(given) if each is not None] if type(given) is tuple else []
        is_one = len(places) == 1 and isinstance(given[places[0]], torch.Tensor)
        takes_one = isinstance(first_argument(module, taken, named), torch.Tensor)
        of_tuple = (len(given), places[0]) if is_one else NO_FORM
        is_fit = takes_one and (is_one or isinstance(given, torch.Tensor))
        forms[path] = (of_tuple if taken else (*of_tuple, first_name(module))) if is_fit else NO_FORM

    with ExitStack() as stack, suppress(Exception):  # one that does not run is told of elsewhere
        for path, module in model.named_modules():
            if path:
                stack.callback(module.register_forward_hook(partial(note, path), with_kwargs=True).remove)
        model(copied(inputs))
    return forms
