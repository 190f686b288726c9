"""Smaller networks made of a trained model by one number, the share that is kept: what a search has to beat.

B = examples, on axis 0.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.batch_norm import average_statistics, forget_statistics, norms_of
from nas_core.families.model.alternatives import Alternative, Narrower, Slimmer
from nas_core.families.model.assembling import calls_of, drafted, learning, on_paths
from nas_core.families.model.draft import Draft, Original
from nas_core.families.model.rebuild import Change, changed, fill

from timm.models import list_models, model_entrypoint  # isort: skip

NEAR = 0.02  # of the limit: how near a network is brought to it
HALVINGS = 8
NARROWEST = 0.02
STATISTICS_MOMENTUM = 0.1  # torch's own


@dataclass(frozen=True, kw_only=True)
class Made:
    """A network with its weights, and the changes that make it of the model."""

    network: nn.Module
    changes: Mapping[str, Change]


def narrowed(
    teacher: nn.Module, paths: Sequence[str], share: float, samples: torch.Tensor, *, fitted: bool = True
) -> Made:
    """The inside of every block at these paths with the same share of its channels, and of its heads.

    Channels are chosen by their contribution and weights fitted to the samples
    B x ..., unless only the shapes matter. A single layer has no inside: what it
    stands in is narrowed in its place.

    Raises:
        SpaceError: if nothing has an inside.
    """
    network, changes, done = copy.deepcopy(teacher), dict[str, Change](), list[str]()
    around = dict.fromkeys(path.rpartition(".")[0] for path in paths)
    wanted = [*paths, *(path for path in around if path and path not in paths)]
    calls = calls_of(teacher, wanted, samples) if fitted else {}
    few = calls_of(teacher, wanted, samples[:2])
    narrower = Narrower(Narrower.Settings(ratio=share, multiple=1))
    slimmer = Slimmer(Slimmer.Settings(ratio=share, multiple=1, heads=share))
    for path in wanted:
        if path not in few or any(inner.startswith(f"{path}.") for inner in done):
            continue
        block = Original(block=teacher.get_submodule(path), call=few[path], samples=calls.get(path))
        draft = _first_of(block, (slimmer, narrower))
        if draft is None:
            continue
        network.set_submodule(path, draft.block)
        changes |= on_paths(path, draft.changes)
        done.append(path)
    if not done:
        raise SpaceError("uniform", "no block with an inside that could be narrower", "one at least")
    return Made(network=learning(network), changes=changes)


def _first_of(block: Original, alternatives: Sequence[Alternative]) -> Draft | None:
    """The first of the alternatives that stands in the block's place."""
    for alternative in alternatives:
        with suppress(SpaceError):
            return drafted(block, alternative)
    return None


def pruned(teacher: nn.Module, share: float, samples: torch.Tensor) -> Made:
    """Torch-Pruning's magnitude pruner (Fang et al., 2023): every layer alike, the last linear layer left alone.

    Raises:
        ImportError: where Torch-Pruning is not installed.
        SpaceError: for a model that it cannot prune, or whose pruned form is not described by plain changes.
    """
    import torch_pruning

    network = learning(copy.deepcopy(teacher))
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
    attention = [module for module in network.modules() if hasattr(module, "qkv") and hasattr(module, "num_heads")]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of parameters that it prunes by a rule of its own
            pruner = torch_pruning.pruner.MagnitudePruner(
                network,
                samples[:2],
                torch_pruning.importance.MagnitudeImportance(p=2),
                pruning_ratio=1 - share,
                ignored_layers=last,
                num_heads={module.qkv: module.num_heads for module in attention},
            )
            pruner.step()
        _tell_heads(attention, pruner.num_heads)
        found = Made(network=network.eval(), changes=differences(teacher, network))
        rebuilt = fill(changed(copy.deepcopy(teacher), found.changes), network.state_dict())
        with torch.no_grad():
            same = torch.equal(network(samples[:2]), rebuilt.eval()(samples[:2]))
    except Exception as error:  # its own assertions, or a forward pass that knows the old sizes
        raise SpaceError("torch_pruning", f"{type(error).__name__}: {error}"[:300], "a model that it prunes") from None
    if not same:
        raise SpaceError("torch_pruning", "a network that other changes than sizes made", "sizes that are changed")
    return found


def _tell_heads(attention: Sequence[Any], num_heads: Mapping[Any, int]) -> None:
    """Set what timm's attention knows of its width, as Torch-Pruning leaves to its users."""
    for module in attention:
        module.num_heads, width = num_heads[module.qkv], module.qkv.out_features // 3
        module.head_dim = width // module.num_heads
        if hasattr(module, "attn_dim"):
            module.attn_dim = width


def differences(before: nn.Module, after: nn.Module) -> dict[str, Change]:
    """Plain attributes of modules that are others than before, as changes; tensors are not looked at."""
    own = dict(after.named_modules())
    found: dict[str, Change] = {}
    for path, module in before.named_modules():
        new, old = dict(_plain(own[path])), dict(_plain(module))
        if given := {name: value for name, value in new.items() if name in old and old[name] != value}:
            found[path] = {"set": {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}}
    return found


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Public attributes that are numbers, or tuples of them."""
    for name, value in vars(module).items():
        parts = value if isinstance(value, tuple) else (value,)
        if not name.startswith("_") and name != "training" and all(isinstance(part, int | float) for part in parts):
            yield name, value


def shapes_beside(network: nn.Module, fresh: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's tensors that are others than those of the fresh one of its structure."""
    own = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    return {name: tuple(t.shape) for name, t in network.state_dict().items() if own.get(name) not in (None, t.shape)}


def nearest(build: Callable[[float], nn.Module], used: Callable[[nn.Module], float]) -> float:
    """The largest share that is kept with which the network uses at most 1 of the limit, of those looked at.

    Where none does, the share of the network that uses the least: a pruner may leave layers whole of which
    less than a channel would stay. ``used`` says how much of the limit a network takes. Halving, since smaller
    networks take less.
    """
    low, high, taken = NARROWEST, 1.0, dict[float, float]()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        taken[middle] = used(build(middle))
        if taken[middle] > 1:
            high = middle
            continue
        low = middle
        if taken[middle] >= 1 - NEAR:
            break
    within = [share for share in taken if taken[share] <= 1]
    return max(within) if within else min(taken, key=taken.__getitem__)


def siblings(name: str) -> list[str]:
    """Models of timm's, of the same file, whose names differ in one word or number, and end in one more at most."""
    words, home = _words(name), model_entrypoint(name).__module__.rpartition(".")[2]
    return [other for other in list_models(module=home) if _is_near(words, _words(other))]


def _is_near(one: Sequence[str], other: Sequence[str]) -> bool:
    apart = sum(mine != theirs for mine, theirs in zip(one, other, strict=False))
    return apart == 1 and 0 <= len(other) - len(one) <= 1


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.partition(".")[0])


def recalibrated(network: nn.Module, batches: Sequence[torch.Tensor]) -> nn.Module:
    """The network itself, in eval mode, with normalisation statistics of these prepared batches B x ...."""
    norms = norms_of(network)
    network.eval()
    forget_statistics(norms)
    with torch.no_grad():
        for index, batch in enumerate(batches):
            average_statistics(norms, index)
            network(batch)
    for norm in norms:
        norm.momentum = STATISTICS_MOMENTUM
    return network.eval()
