"""Weights are found in files as people and frameworks write them; what is none is one line."""

import argparse
import io

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from nas_core.base.errors import DataError
from nas_core.families.model.checkpoints import load_weights

pytestmark = pytest.mark.situations


def network(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, outputs))


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return network().state_dict()


def under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": weight for name, weight in weights.items()}


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in state().items() if name not in names}


def of_two_kinds(averaged: str) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": state(1), averaged: state()}


LOSS = {"loss.weight": torch.ones(3)}
LAYOUTS = {
    "plain": state(),
    "half": {name: weight.half() if weight.is_floating_point() else weight for name, weight in state().items()},
    "no counter": without("1.num_batches_tracked"),
    "distributed": under("module.", state()),
    "compiled and distributed": under("module._orig_mod.", state()),
    **{name: {name: state(), "epoch": 3} for name in ("state_dict", "model", "model_state_dict", "net", "params")},
    "deep": {"trainer": {"network": under("model.", state())}},
    "lightning": {"state_dict": {**under("net.", state()), **LOSS}, "hyper_parameters": {"lr": 0.1}},
    "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "model": state()},
    "arguments": {"model": state(), "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
    **{name: of_two_kinds(name) for name in ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "swa_model")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_s_weights_are_found(layout, tmp_path):
    path, model = tmp_path / "mine.pth", network()
    torch.save(LAYOUTS[layout], path)
    load_weights(model, str(path), "weights of mine")
    for name, weight in state().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(model.state_dict()[name], weight, atol=1e-3), name


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth", "mine"])
def test_safetensors_are_known_by_what_they_hold(name, tmp_path):
    (tmp_path / name).write_bytes(save(under("module.", state())))
    model = network()
    load_weights(model, str(tmp_path / name), "weights of mine")
    assert torch.equal(model[3].weight, state()["3.weight"])


def written(what) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


BROKEN = {**state(), "3.weight": torch.full((3, 4), torch.nan)}
WRONG = {
    "empty": (lambda: b"", "found an empty file, expected a state dict"),
    "text": (lambda: b"my weights are elsewhere", "found a file that holds no weights"),
    "cut off": (lambda: written(state())[:900], "found a damaged file, or one that holds no weights"),
    "cut off safetensors": (lambda: save(state())[:300], "found a damaged file, or one that holds no weights"),
    "a list": (lambda: written([torch.ones(2)]), "found no weights by name"),
    "a tensor": (lambda: written(torch.ones(2)), "found no weights by name"),
    "a module": (lambda: written(network()), r"found a pickled torch\.nn\.modules\.container\.Sequential"),
    "TorchScript": (script, "found a TorchScript archive"),
    "NaN": (lambda: written(BROKEN), r"found weights that are NaN or infinite \(3\.weight\)"),
    "other classes": (
        lambda: written(network(7).state_dict()),
        r"weights of other shapes \(3\.weight: 7 x 4, not 3 x 4, 3\.bias: 7, not 3\), expected weights of mine",
    ),
    "a layer less": (lambda: written(without("3.weight", "3.bias")), r"without 2 of the model's 9 weights \(3\.weight"),
    "a layer more": (lambda: written({**state(), **LOSS}), r"with 1 that the model does not have \(loss\.weight\)"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_what_holds_no_weights_of_the_model_is_one_line(kind, tmp_path):
    content, said = WRONG[kind]
    path = tmp_path / "mine.pth"
    path.write_bytes(content())
    with pytest.raises(DataError, match=said) as caught:
        load_weights(network(), str(path), "weights of mine")
    text = str(caught.value)
    assert text.startswith(f"space.checkpoint {path}: ")
    assert "\n" not in text
    assert "weights_only" not in text
