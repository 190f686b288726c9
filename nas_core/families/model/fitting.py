"""Weights by least squares: what was made cheaper gives, on samples, what the original gave.

Each changed layer whose output has the original layer's shape is fitted, in the
order in which they run, to the original's output, given what the changed layers
before it make of the samples (as He et al., 2017, for pruned channels). The fit
stays near the weights that are there (ridge), so that few samples do no harm.

R = rows (samples times pixels or tokens), I = features in, O = features out.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas_core.families.model.draft import Call, Draft, hooked
from nas_core.families.model.rebuild import Only
from nas_core.families.model.widths import first_input

FITTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
MOST_FEATURES = 4_608  # of a layer that is fitted: the equations have their square
MOST_ROWS = 16_384
ENOUGH_ROWS = 16  # for each feature of a linear map: more would hardly change it
RECTIFIED_STEPS = 8  # of the fit of a layer before a ReLU
FEW = 16  # examples, by which is told what a layer does
EQUAL = 1e-2  # relative to the largest: what a GPU's short numbers may make of a sum
RIDGE = 1e-3  # relative to the features' mean square


def fit(draft: Draft) -> None:
    """Fit the draft's changed layers to its samples, where those are; without samples nothing changes."""
    samples = draft.known.samples
    if samples is None:
        return
    draft.block.to(samples.inputs.device)
    with torch.no_grad():
        for path in _changed(draft):
            _fit_layer(draft, samples, path)
    draft.block.to(draft.call.inputs.device)


def _changed(draft: Draft) -> list[str]:
    """Paths of what was changed and gives the original's output, in the order in which they run."""
    if "put" in draft.changes.get("", {}):  # set, it is an attention by itself, whose layers changed
        return [""] if isinstance(_last(draft.block), FITTED) else []
    order = [path for path, _ in draft.original.named_modules()]
    return [path for path in sorted(draft.changes, key=order.index) if _is_fitted(draft, path)]


def _is_fitted(draft: Draft, path: str) -> bool:
    layer, before = _last(draft.block.get_submodule(path)), draft.original.get_submodule(path)
    if not isinstance(layer, FITTED) or not isinstance(before, FITTED):
        return False
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups > 1:
        return False
    return layer.weight.shape[0] == before.weight.shape[0] and layer.weight[0].numel() <= MOST_FEATURES


def _last(module: nn.Module) -> nn.Module:
    """The last layer with weights."""
    if isinstance(module, Only):
        return _last(module.inner)
    if not isinstance(module, nn.Sequential):
        return module
    return _last(module[:-1]) if isinstance(module[-1], nn.ReLU) else module[-1]


def _fit_layer(draft: Draft, samples: Call, path: str) -> None:
    layer: Any = _last(draft.block.get_submodule(path))
    wanted = draft.known.output_of(path)
    given = input_of(draft.block, layer, samples)
    if not follows(layer, given[:FEW], layer(given[:FEW])):
        return
    features_RI, targets_RO = rows_of(layer, given, wanted)
    if not _is_rectified(draft.block.get_submodule(path)):
        solved = step_to(layer, features_RI, targets_RO)
        draft.is_solved = solved and not path and len(features_RI) >= ENOUGH_ROWS * features_RI.shape[1]
        return
    for _ in range(RECTIFIED_STEPS):  # where a zero is wanted, anything below is as good
        now_RO = features_RI @ layer.weight.flatten(1).T + layer.bias
        step_to(layer, features_RI, torch.where(targets_RO > 0, targets_RO, now_RO.clamp(max=0)))


def _is_rectified(module: nn.Module) -> bool:
    inner = module.inner if isinstance(module, Only) else module
    return isinstance(inner, nn.Sequential) and isinstance(inner[-1], nn.ReLU)


def step_to(layer: Any, features_RI: torch.Tensor, targets_RO: torch.Tensor) -> bool:
    """Move the layer to the least-squares map from features to targets; False where none is found."""
    weight_OI = layer.weight.flatten(1)
    bias_O = layer.bias
    left = targets_RO - features_RI @ weight_OI.T
    if bias_O is not None:
        left = left - bias_O
        features_RI = torch.cat([features_RI, features_RI.new_ones(len(features_RI), 1)], 1)
    step = _ridge(features_RI, left)
    if step is None:
        return False
    size = weight_OI.shape[1]
    layer.weight += step[:, :size].reshape(layer.weight.shape)
    if bias_O is not None:
        bias_O += step[:, size]
    return True


def _ridge(features_RI: torch.Tensor, targets_RO: torch.Tensor) -> torch.Tensor | None:
    """O x I: the least-squares map, kept small; None where the equations cannot be solved."""
    square_II = features_RI.T @ features_RI
    strength = RIDGE * square_II.diagonal().mean() + 1e-12
    square_II.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(square_II)
    if failed:
        return None
    step: torch.Tensor = torch.cholesky_solve(features_RI.T @ targets_RO, factor).T
    return step if step.isfinite().all() else None


def rows_of(layer: Any, given: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's inputs as rows of features, and the outputs that each should have; as many as are needed."""
    if isinstance(layer, nn.Linear):
        features, targets = given.flatten(0, -2), wanted.flatten(0, -2)
    else:
        most = max(1, MOST_ROWS * 4 // max(1, math.prod(wanted.shape[2:])))
        given, wanted = _padded(layer, given[:most]), wanted[:most]
        kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
        if isinstance(layer, nn.Conv1d):  # an image of one row
            given, kernel, dilation, stride = given.unsqueeze(2), (1, *kernel), (1, *dilation), (1, *stride)
        columns = F.unfold(given, kernel, dilation, 0, stride)
        features, targets = columns.transpose(1, 2).flatten(0, 1), wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    if len(features) > MOST_ROWS:  # drawn, always alike: every so many would be the same columns of each image
        drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
        features, targets = (rows[drawn.to(rows.device)] for rows in (features, targets))
    return features.float(), targets.float()


def follows(layer: Any, given: torch.Tensor, output: torch.Tensor) -> bool:
    """Whether the layer gives its weight times the rows of what it takes, plus its bias.

    A class of somebody's own may scale or standardise the weight first, or pad what it takes.
    """
    features_RI, output_RO = rows_of(layer, given, output)
    if len(features_RI) != len(output_RO):
        return False
    found_RO = features_RI @ layer.weight.flatten(1).float().T + (0.0 if layer.bias is None else layer.bias.float())
    return bool((found_RO - output_RO).abs().max() <= EQUAL * output_RO.abs().max())


def _padded(layer: nn.Conv1d | nn.Conv2d, given: torch.Tensor) -> torch.Tensor:
    """What the layer's kernel runs over: it may say `same` or `valid` of its padding, and pad with more than zeros."""
    if layer.padding == "same":
        whole = [dilation * (side - 1) for side, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
        around = [(each // 2, each - each // 2) for each in whole]
    else:
        padding = (0,) * (given.ndim - 2) if isinstance(layer.padding, str) else layer.padding
        around = [(each, each) for each in padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(given, [pad for pair in reversed(around) for pad in pair], mode=mode)


def input_of(block: nn.Module, layer: nn.Module, samples: Call) -> torch.Tensor:
    """What the layer takes while the block runs on the samples."""
    kept: list[torch.Tensor] = []

    def look(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if module is layer:
                kept.append(first_input(inputs, named).clone())

        return hook

    with hooked(block, (type(layer),), look):
        samples.run(block)
    return kept[-1]
