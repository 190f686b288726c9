"""Networks made of a trained model: its blocks, where the choice says so, replaced by alternatives.

B = examples, on axis 0.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from nas_core.base.errors import SpaceError
from nas_core.base.fast_path import without_fast_path
from nas_core.families.model.alternatives import Alternative
from nas_core.families.model.draft import Call, Draft, Original, are_alike, in_full
from nas_core.families.model.fitting import fit
from nas_core.families.model.rebuild import Change, changed, reshape
from nas_core.families.model.tracing import LEFT_OUT, Inputs, copied

WRITTEN = "changes by which the block is built again"


class Stub(nn.Module):
    """Zeros of a block's output shape, at no cost: what is left is what every network has."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: torch.Tensor, *context: Any, **named: Any) -> torch.Tensor:
        return x.new_zeros(len(x), *self.shape)


class InContext(nn.Module):
    """A block by itself: called with its first input, it gets the context that its model gives it."""

    def __init__(self, block: nn.Module, call: Call) -> None:
        super().__init__()
        self.block, self.call = block, call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        call = self.call.on(x)
        context, named = tree_map(partial(_beside, x=x), (call.context, dict(call.named)))
        outputs: torch.Tensor = self.block(call.inputs, *context, **named)  # a copy would be counted, and timed
        return outputs


def _beside(value: Any, x: torch.Tensor) -> Any:
    return value.to(x.device) if isinstance(value, torch.Tensor) else value


def calls_of(network: nn.Module, paths: Iterable[str], inputs: Inputs) -> dict[str, Call]:
    """How the network calls the modules at these paths, for these inputs B x ...; no gradients."""
    return {path: call for path, (call, _) in observed(network, paths, inputs).items()}


def observed(network: nn.Module, paths: Iterable[str], inputs: Inputs) -> dict[str, tuple[Call, torch.Tensor]]:
    """How the network calls the modules at these paths, and what each gives, for these inputs B x ...; no gradients.

    Both are copies: a later layer may work in place. What takes or gives something else than a tensor is left out.
    What is cast within the network's own forward pass is given in full precision, as the modules are run by themselves.
    """
    calls: dict[str, Call] = {}
    outputs: dict[str, torch.Tensor] = {}
    place = next(network.parameters()).device.type
    casts = torch.is_autocast_enabled(place)  # here, whatever the network does
    with ExitStack() as stack, torch.no_grad():
        for path in paths:

            def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], path: str = path) -> None:
                if args and isinstance(args[0], torch.Tensor):
                    inputs, context, others = copied((args[0], args[1:], dict(named)))
                    call = Call(inputs=inputs, context=context, named=others)
                    calls[path] = call if casts else call.in_full()

            def after(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
                if isinstance(output, torch.Tensor):
                    outputs[path] = output.clone() if casts else in_full(output.clone())

            module = network.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        network(copied(inputs))
    return {path: (call, outputs[path]) for path, call in calls.items() if path in outputs}


def drafted(original: Original, alternative: Alternative) -> Draft:
    """The block as the alternative makes it, fitted to the samples where there are some.

    Raises:
        SpaceError: if it cannot stand there: the message says why.
    """
    draft = Draft(original)
    where = f"alternative {alternative.name}"
    try:
        why = alternative.change(draft)
    except SpaceError:
        raise
    except Exception as error:  # weights of which it cannot be made, such as ones that are no numbers
        why = f"{type(error).__name__}: {str(error)[:200]}"
    if why:
        raise SpaceError(where, why, "a block that it can be made of")
    try:
        fit(draft)
        draft.settle()
        with torch.no_grad():
            output, wanted = draft.call.run(draft.block.eval()), draft.shapes[1]
    except Exception as error:  # a class whose forward pass knows the old sizes
        raise SpaceError(where, f"{type(error).__name__}: {str(error)[:200]}", "a block that runs") from None
    if tuple(output.shape[1:]) != wanted:
        raise SpaceError(where, f"outputs of {tuple(output.shape[1:])}", f"the block's own, {wanted}")
    if why := _of_one_size(draft):
        raise SpaceError(where, why, "a block that runs on any number of examples, as its original does")
    if not alternative.is_ours and (why := _not_written(original, draft)):
        raise SpaceError(where, why, WRITTEN)
    return draft


def _of_one_size(draft: Draft) -> str:
    """Why the draft's block does not run on other numbers of examples than it was made with; "" where it does."""
    alone = draft.known.alone
    if alone is None:
        return ""
    try:
        with torch.no_grad():
            shape = tuple(alone.run(draft.block).shape)
    except Exception as error:
        return f"{type(error).__name__} of one example: {str(error)[:200]}"
    return "" if shape == (1, *draft.shapes[1]) else f"outputs of {shape} of one example"


def _not_written(original: Original, draft: Draft) -> str:
    """Why the draft's changes and weights do not build its block again, as `load.py` does; "" where they do."""
    weights = draft.block.state_dict()
    try:
        again = changed(copy.deepcopy(original.block), json.loads(json.dumps(draft.changes)))
        reshape(again, {name: tuple(weight.shape) for name, weight in weights.items()})  # a cut table is a weight
        names = sorted(again.state_dict().keys() ^ weights.keys())
        found = f"weights {', '.join(names[:3])}" if names else ""
        if not names:
            again.load_state_dict(weights)
            again = again.to(draft.call.inputs.device).eval()
            with torch.no_grad():
                is_same = are_alike(draft.call.run(again), draft.call.run(draft.block))
            found = "" if is_same else "other outputs"
    except RuntimeError:  # torch's, of sizes
        found = "other shapes"
    except Exception as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
    return f"a change that is not written down ({found}): change the block by draft.put and draft.set" if found else ""


def is_identity(draft: Draft) -> bool:
    """Whether the draft's block gives what it takes, whatever its weights."""
    with torch.no_grad():
        if not torch.equal(draft.call.run(draft.block), draft.call.inputs):
            return False
    block = learning(copy.deepcopy(draft.block))
    output = draft.call.run(block)
    if not output.requires_grad:
        return True
    gradients = torch.autograd.grad(
        output.square().sum(), list(filter(can_learn, block.parameters())), allow_unused=True
    )
    return not any(each is not None and bool(each.any()) for each in gradients)


def flops_of(block: nn.Module, call: Call) -> float:
    """Multiply-adds of the block per example."""
    operations = FlopCounterMode(display=False, custom_mapping=LEFT_OUT)
    with torch.no_grad(), without_fast_path(), operations:
        call.run(block)
    return operations.get_total_flops() / 2 / len(call.inputs)


def on_paths(path: str, changes: Mapping[str, Change]) -> dict[str, Change]:
    """A block's changes by their paths in the model."""
    return {f"{path}.{inner}" if inner else path: change for inner, change in changes.items()}


def without_weights(block: nn.Module) -> nn.Module:
    """The block's structure alone, on torch's meta device, but for buffers that no file of weights holds."""
    made = copy.deepcopy(block)
    fixed = _unsaved(made)
    return _with_buffers(made.to("meta"), fixed)


def with_fresh_weights(block: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """A structure with weights of no meaning, on torch's default device; its numbers are harmless to time."""
    device = torch.get_default_device()
    made = copy.deepcopy(block)
    fixed = {place: buffer.to(device) for place, buffer in _unsaved(made).items()}
    made = made.to_empty(device=device)
    if device.type == "meta":
        return made
    with torch.no_grad():
        for parameter in made.parameters():  # indices and masks, which some are, would be whatever the memory held
            parameter.normal_(0.0, 0.02, generator=generator) if can_learn(parameter) else parameter.zero_()
        for name, buffer in made.named_buffers():
            buffer.fill_(1) if name.endswith("running_var") else buffer.zero_()
    return _with_buffers(made, fixed)


def learning(network: nn.Module) -> nn.Module:
    """The network itself, all of it ready to learn that can."""
    for parameter in filter(can_learn, network.parameters()):
        parameter.requires_grad_(True)
    return network


def can_learn(parameter: nn.Parameter) -> bool:
    """Indices and masks cannot, which some hold as parameters."""
    return parameter.is_floating_point() or parameter.is_complex()


def _unsaved(block: nn.Module) -> dict[tuple[str, str], torch.Tensor]:
    """Buffers that are no part of the state (tables, masks), by module and name: nothing would bring them back."""
    return {
        (path, name): buffer
        for path, module in block.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }


def _with_buffers(block: nn.Module, buffers: Mapping[tuple[str, str], torch.Tensor]) -> nn.Module:
    for (path, name), buffer in buffers.items():
        block.get_submodule(path)._buffers[name] = buffer
    return block
