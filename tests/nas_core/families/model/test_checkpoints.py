"""Weights are found in files as people and frameworks write them; what is none is one line."""

import argparse
import io
import pathlib
import pickle

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


def knotted() -> dict[str, object]:
    content: dict[str, object] = {"model": state()}
    content["self"] = content
    return content


LOSS = {"loss.weight": torch.ones(3)}
ARGUMENTS = argparse.Namespace(lr=0.1, out=pathlib.PosixPath("runs"))
PARTS = {name: weight for name, weight in state(1).items() if name[0] == "3"}
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
    "arguments": {"model": state(), "args": ARGUMENTS, "best": np.float64(0.9), "random": np.random.get_state()},
    "numbers beside": {**state(), "epoch": 3},
    "compiled inside": {name.replace("1.", "1._orig_mod."): weight for name, weight in state().items()},
    "averaged by torch": {"n_averaged": torch.tensor(3), **under("module.", state())},
    "averaged behind a prefix": {"state_dict": {**under("model.", state(1)), **under("ema_model.", state())}},
    "averaged in part": {"model": state(), "ema": PARTS},
    "averaged deeper": {"model": state(1), "ema": {"decay": 0.9, "shadow": state()}},
    "another beside": {"state_dict": {**under("teacher.", state(1)), **under("model.", state())}},
    "a name with ema in it": {"schema": state(1), "swap": state(1), "model": state()},
    "the same twice": {"student": state(), "teacher": state()},
    "in a ring": knotted(),
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


class Logits(nn.Module):
    """What a user writes around a model that gives more than one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.ModuleDict({"net": network()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inside["net"](x)
        return outputs


@pytest.mark.parametrize("layout", ["plain", "distributed", "deep", "averaged deeper", "compiled inside"])
def test_weights_of_a_model_that_stands_in_another_are_found(layout, tmp_path):
    path, model = tmp_path / "mine.pth", Logits()
    torch.save(LAYOUTS[layout], path)
    load_weights(model, str(path), "weights of mine")
    assert torch.equal(model.inside["net"][0].weight, state()["0.weight"])
    torch.save(under("inside.", {"net.0.weight": state()["0.weight"]}), path)
    with pytest.raises(DataError, match="without 7 of the model's 8"):
        load_weights(model, str(path), "weights of mine")


def test_a_suffix_is_no_content(tmp_path):
    torch.save(state(), tmp_path / "mine.safetensors")
    torch.save(state(), tmp_path / "mine.pt", _use_new_zipfile_serialization=False)
    for name in ("mine.safetensors", "mine.pt"):
        model = network()
        load_weights(model, str(tmp_path / name), "weights of mine")
        assert torch.equal(model[3].weight, state()["3.weight"])


def test_weights_as_an_older_torch_named_them_stand_behind_a_prefix(tmp_path):
    def normed() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))

    new, path = normed().state_dict(), tmp_path / "mine.pth"
    old = {name.replace("parametrizations.weight.original", "weight_"): weight for name, weight in new.items()}
    old = {name.replace("weight_0", "weight_g").replace("weight_1", "weight_v"): old[name] for name in old}
    torch.save({"state_dict": under("model.", old)}, path)
    model = normed()
    load_weights(model, str(path), "weights of mine")
    assert all(torch.equal(weight, new[name]) for name, weight in model.state_dict().items())


def test_a_mask_may_be_minus_infinite(tmp_path):
    def masked(value: float) -> nn.Module:
        model = nn.Linear(2, 2)
        model.register_buffer("mask", torch.full((2,), value))
        return model

    path = tmp_path / "mine.pth"
    torch.save(masked(-torch.inf).state_dict(), path)
    load_weights(masked(0.0), str(path), "weights of mine")
    torch.save(masked(torch.nan).state_dict(), path)
    with pytest.raises(DataError, match=r"NaN or infinite \(mask\)"):
        load_weights(masked(0.0), str(path), "weights of mine")


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth", "mine"])
def test_safetensors_are_known_by_what_they_hold(name, tmp_path):
    (tmp_path / name).write_bytes(save(under("module.", state())))
    model = network()
    load_weights(model, str(tmp_path / name), "weights of mine")
    assert torch.equal(model[3].weight, state()["3.weight"])


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_safetensors_whose_length_looks_like_another_files_first_bytes_are_read(start, tmp_path):
    """Their first bytes are the header's length: of one in 32 the first is a pickle's."""
    for note in range(0, 30_000, 8):
        content = save(state(), {"note": "x" * note})
        if content.startswith(start):
            break
    (tmp_path / "mine.safetensors").write_bytes(content)
    assert content.startswith(start)
    model = network()
    load_weights(model, str(tmp_path / "mine.safetensors"), "weights of mine")
    assert torch.equal(model[3].weight, state()["3.weight"])


def written(what) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(2))
    return buffer.getvalue()


class Runs:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise AssertionError('was run')",)


BROKEN = {**state(), "3.weight": torch.full((3, 4), torch.nan)}
TOO_LARGE = {**state(), "3.bias": torch.full((3,), 1e300, dtype=torch.float64)}
PART = without("3.weight", "3.bias")
WRONG = {
    "empty": (lambda: b"", "found an empty file, expected a state dict"),
    "text": (lambda: b"my weights are elsewhere", "found a text file that begins with 'my weights are elsewhere'"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1", "found a pointer of Git LFS"),
    "bytes": (lambda: bytes(100), "found a file that is damaged, cut short or no checkpoint"),
    "cut off": (lambda: written(state())[:900], "found a file that is cut short"),
    "cut off safetensors": (lambda: save(state())[:300], "found a file that is damaged, cut short"),
    "a list": (lambda: written([torch.ones(2)]), "found no weights by name, but a list"),
    "a tensor": (lambda: written(torch.ones(2)), "found no weights by name, but a Tensor"),
    "numbers": (lambda: written({"epoch": 3}), r"found no weights by name, but entries \(epoch\)"),
    "arrays": (arrays, "found a NumPy archive"),
    "a pickle": (lambda: pickle.dumps(state()), "found a pickle that torch.save did not write"),
    "code": (lambda: written({"model": state(), "best": Runs()}), "found a pickled .*exec"),
    "a module": (lambda: written(network()), r"found a pickled torch\.nn\.modules\.container\.Sequential"),
    "TorchScript": (script, "found a TorchScript archive"),
    "NaN": (lambda: written(BROKEN), r"found weights that are NaN or infinite \(3\.weight\)"),
    "too large": (lambda: written(TOO_LARGE), r"found weights that are NaN or infinite \(3\.bias\)"),
    "two sets": (lambda: written({"student": state(), "teacher": state(1)}), r"several sets .*\(student, teacher\)"),
    "a layer less, behind a prefix": (
        lambda: written({"optimizer": {0: {"step": torch.ones(2)}}, "state_dict": under("model.", PART)}),
        r"found weights without 2 of the model's 8 weights \(3\.weight, 3\.bias\), expected",
    ),
    "a layer more, behind a prefix": (
        lambda: written(under("model.", {**state(), **LOSS})),
        r"found weights with 1 that the model does not have \(model\.loss\.weight\), expected",
    ),
    "another model": (
        lambda: written({f"{n}.weight": torch.ones(2) for n in "abcd"}),
        r"without 8 of .*8 weights \(0\.weight, 0\.bias, 1\.weight, \.\.\.\) and with 4 .*\(a\.weight, b\.weight, ",
    ),
    "other classes": (
        lambda: written(network(7).state_dict()),
        r"weights of other shapes \(3\.weight: 7 x 4, not 3 x 4, 3\.bias: 7, not 3\), expected weights of mine",
    ),
    "a layer less": (lambda: written(without("3.weight", "3.bias")), r"without 2 of the model's 8 weights \(3\.weight"),
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
