"""Alternatives of a block: what they change, that plain data and weights build them again, and that fitting helps."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.base.settings import Section
from nas_core.families import timm_compat
from nas_core.families.model.alternatives import ALTERNATIVES, Alternative
from nas_core.families.model.assembling import calls_of, drafted, is_identity, observed
from nas_core.families.model.draft import Call, Draft, Original
from nas_core.families.model.rebuild import Attention, changed, fill
from nas_core.families.trained_model import LIBRARY, alternative_of

import timm  # isort: skip
from timm.models.convnext import ConvNeXtBlock  # isort: skip

ROWS: list[dict[str, Any]] = [
    *LIBRARY,
    {"kind": "convolution"},
    {"kind": "smaller-kernel", "kernel": 1},
    {"kind": "grouped", "groups": 2},
    {"kind": "low-rank", "ratio": 0.25},
]


@pytest.fixture(scope="module")
def samples() -> torch.Tensor:
    return torch.randn(48, 8, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return timm_compat.BasicBlock(8, 8).eval().requires_grad_(False)


def _drafted(block: nn.Module, call: Call, alternative: Alternative, samples: Call | None = None) -> Draft:
    return drafted(Original(block=block, call=call, samples=samples), alternative)


def _error(block: nn.Module, original: nn.Module, call: Call) -> float:
    with torch.no_grad():
        return float((call.run(block) - call.run(original)).pow(2).mean())


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(map(str, row.values())) for row in ROWS])
def test_changes_and_weights_build_the_block_again(
    row: dict[str, Any], residual: nn.Module, samples: torch.Tensor
) -> None:
    call = Call(inputs=samples[:2])
    try:
        draft = _drafted(residual, call, alternative_of(row), Call(inputs=samples))
    except SpaceError:
        assert row["kind"] in (
            "fewer-heads",
            "slimmer",
            "without",
            "shallower",
        )  # a convolutional block has neither, and is no row
        return
    again = fill(changed(copy.deepcopy(residual), draft.changes), draft.block.state_dict())
    with torch.no_grad():
        assert torch.equal(call.run(again), call.run(draft.block))


@pytest.mark.parametrize("kind", ["fewer-heads", "slimmer", "without"])
def test_attention_is_changed_where_there_is_some(kind: str) -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=1).eval()
    call = calls_of(model, ["blocks.0"], torch.randn(2, 3, 32, 32))["blocks.0"]
    block = model.get_submodule("blocks.0")
    row = {"kind": kind, **{"fewer-heads": {"ratio": 0.34}, "slimmer": {}, "without": {"branch": "attn"}}[kind]}
    draft = _drafted(block, call, alternative_of(row))
    again = fill(changed(copy.deepcopy(block), draft.changes), draft.block.state_dict())
    with torch.no_grad():
        assert torch.equal(call.run(again), call.run(draft.block))
    assert sum(p.numel() for p in draft.block.parameters()) < sum(p.numel() for p in block.parameters())


def test_a_branch_by_itself_is_changed_as_in_its_block() -> None:
    """A branch that is skipped adds nothing, as the block without it; its heads are found where it is the block."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=1).eval()
    calls = calls_of(model, ["blocks.0", "blocks.0.attn"], torch.randn(2, 3, 32, 32))
    whole, branch = model.get_submodule("blocks.0"), model.get_submodule("blocks.0.attn")
    for alone, inside in (
        ({"kind": "skip"}, {"kind": "without", "branch": "attn"}),
        ({"kind": "fewer-heads", "ratio": 0.34}, {"kind": "fewer-heads", "ratio": 0.34}),
    ):
        draft = drafted(Original(block=branch, call=calls["blocks.0.attn"], is_branch=True), alternative_of(alone))
        expected = _drafted(whole, calls["blocks.0"], alternative_of(inside)).block
        block = copy.deepcopy(whole)
        block.set_submodule("attn", draft.block)
        again = fill(changed(copy.deepcopy(branch), draft.changes), draft.block.state_dict())
        with torch.no_grad():
            assert torch.equal(calls["blocks.0"].run(block), calls["blocks.0"].run(expected))
            assert torch.equal(calls["blocks.0.attn"].run(again), calls["blocks.0.attn"].run(draft.block))


def test_a_branch_that_gives_more_than_a_tensor_is_not_left_out() -> None:
    """What stands for it would be unpacked along the examples, which are two."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attended, _ = self.attn(x, x, x)
            out: torch.Tensor = x + attended + self.mlp(x)
            return out

    original = Original(block=Block().eval(), call=Call(inputs=torch.randn(2, 5, 8)))
    with pytest.raises(SpaceError, match="any number of examples"):
        drafted(original, alternative_of({"kind": "without", "branch": "attn"}))
    assert drafted(original, alternative_of({"kind": "without", "branch": "mlp"})).changes


class Attended(nn.Module):
    """A block of a transformer with torch's own attention, whose weights it leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = (
            nn.LayerNorm(12),
            nn.MultiheadAttention(12, 4, batch_first=True),
            nn.LayerNorm(12),
        )
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y)[0]
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


@pytest.mark.parametrize("make", [Attended, lambda: nn.TransformerEncoderLayer(12, 4, 24, batch_first=True)])
@pytest.mark.parametrize("kind", ["fewer-heads", "slimmer"])
def test_torchs_own_attention_has_fewer_heads(make: Callable[[], nn.Module], kind: str) -> None:
    torch.manual_seed(0)
    block, (seen, new) = make().eval().requires_grad_(False), torch.randn(2, 64, 5, 12)
    original = Original(block=block, call=Call(inputs=new[:2]), samples=Call(inputs=seen))
    draft = drafted(original, alternative_of({"kind": kind}))
    attention = draft.block.get_submodule("self_attn" if hasattr(block, "self_attn") else "attn")
    assert attention.num_heads == 2
    assert sum(p.numel() for p in draft.block.parameters()) < sum(p.numel() for p in block.parameters())
    again = fill(changed(copy.deepcopy(block), json.loads(json.dumps(draft.changes))), draft.block.state_dict()).eval()
    with torch.no_grad():
        assert torch.equal(Call(inputs=new).run(again), Call(inputs=new).run(draft.block))
    plain = drafted(Original(block=block, call=Call(inputs=new[:2])), alternative_of({"kind": kind})).block
    assert _error(draft.block, block, Call(inputs=new)) < _error(plain, block, Call(inputs=new))


MASKS = {
    "none": {},
    "of numbers": {"attn_mask": torch.randn(5, 5)},
    "of truths": {"attn_mask": torch.ones(5, 5).triu(1).bool(), "is_causal": True},
    "by heads": {"attn_mask": torch.randn(12, 5, 5)},
    "of padding": {"key_padding_mask": torch.arange(5).repeat(3, 1) > torch.tensor([[2], [4], [3]])},
    "both": {
        "attn_mask": torch.ones(5, 5).triu(1).bool(),
        "key_padding_mask": torch.arange(5).repeat(3, 1) > torch.tensor([[2], [4], [3]]),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("settings", [{"batch_first": True}, {}, {"bias": False, "batch_first": True}], ids=str)
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")  # torch's, of masks of two kinds
def test_attention_as_layers_computes_what_torchs_does(mask: str, settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, **settings).eval()
    for name, weight in theirs.named_parameters():
        weight.data.normal_(0, 0.1 if "bias" in name else 0.3)
    queries, keys = torch.randn(2, 3, 5, 16)
    if not settings.get("batch_first"):
        queries, keys = queries.transpose(0, 1), keys.transpose(0, 1)
    with torch.no_grad():
        expected = theirs(queries, keys, keys, need_weights=False, **MASKS[mask])[0]
        found = Attention.of(theirs)(queries, keys, keys, need_weights=False, **MASKS[mask])[0]
        alone = Attention.of(theirs)(queries[0], keys[0], keys[0])[0] if settings.get("batch_first") else None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if alone is not None and mask == "none":
        torch.testing.assert_close(alone, expected[0], rtol=1e-4, atol=1e-5)


def test_what_weights_allow_no_alternative_to_be_made_of_is_said() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()).eval()
    nn.init.constant_(block[0].weight, float("nan"))  # type: ignore[arg-type]
    original = Original(block=block, call=Call(inputs=torch.randn(2, 4, 5, 5)))
    with pytest.raises(SpaceError, match="LinAlgError"):
        drafted(original, alternative_of({"kind": "depthwise-separable"}))


def test_an_attention_with_fewer_heads_is_fitted_by_itself_as_in_a_block() -> None:
    torch.manual_seed(0)
    attention = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=1).blocks[0].attn.eval()
    seen, new = torch.randn(2, 400, 5, 192)
    errors = []
    for block in (attention, nn.Sequential(attention)):
        drafts = (
            _drafted(block, Call(inputs=new), alternative_of({"kind": "fewer-heads", "ratio": 0.34}), samples)
            for samples in (None, Call(inputs=seen))
        )
        errors.append([_error(draft.block, block, Call(inputs=new)) for draft in drafts])
    (plain, fitted), within = errors
    assert fitted < plain
    assert within == pytest.approx([plain, fitted], rel=1e-3)


def test_slimmer_is_both_fewer_heads_and_narrower() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=1).eval()
    call = calls_of(model, ["blocks.0"], torch.randn(2, 3, 32, 32))["blocks.0"]
    original = Original(block=model.get_submodule("blocks.0"), call=call)
    heads, inner, both = (
        drafted(original, alternative_of(row)).changes
        for row in (
            {"kind": "fewer-heads", "ratio": 0.34},
            {"kind": "narrower", "ratio": 0.25},
            {"kind": "slimmer", "heads": 0.34, "ratio": 0.25},
        )
    )
    assert both == {**heads, **inner}
    assert len(both) == len(heads) + len(inner)


@pytest.mark.parametrize(
    ("row", "expected"),
    [({"kind": "without", "branch": "mlp"}, True), ({"kind": "skip"}, True), ({"kind": "linear"}, False)],
)
def test_what_gives_what_it_takes_and_cannot_learn_is_an_identity(row: dict[str, Any], expected: bool) -> None:
    """ConvNeXt's only branch left out is one; a linear layer begins as one, but learns."""
    block, call = ConvNeXtBlock(8).eval().requires_grad_(False), Call(inputs=torch.randn(2, 8, 6, 6))
    assert is_identity(_drafted(block, call, alternative_of(row))) == expected


class Begun(nn.Module):
    """A residual branch whose last layer begins with zeros, behind a ReLU: negative only once it has learned."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.branch = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(self.branch.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() + self.branch(x)


def test_what_an_alternative_is_made_of_does_not_depend_on_weights(samples: torch.Tensor) -> None:
    fresh, trained = Begun().eval(), Begun().eval()
    nn.init.normal_(trained.branch.weight)
    call = Call(inputs=samples[:2])
    made, again = (_drafted(block, call, alternative_of({"kind": "convolution"})).changes for block in (fresh, trained))
    assert made == again


def test_alternatives_that_do_not_fit_a_layer_are_refused_before_it_is_fitted() -> None:
    """Padding by reflection stays as it was made; a sequence of channels has them before its places."""
    padded = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect"), nn.AdaptiveAvgPool2d(1)).eval()
    with pytest.raises(SpaceError, match="nothing of it to change"):
        _drafted(padded, Call(inputs=torch.randn(2, 8, 9, 9)), alternative_of({"kind": "smaller-kernel", "kernel": 3}))
    series = nn.Conv1d(8, 8, 3, padding=1).eval()
    with pytest.raises(SpaceError, match="other pixels or tokens"):
        _drafted(series, Call(inputs=torch.randn(2, 8, 8)), alternative_of({"kind": "linear"}))


@pytest.mark.parametrize("kind", ["narrower", "depthwise-separable", "low-rank", "convolution", "linear"])
def test_fitted_to_samples_the_error_is_smaller_on_others(kind: str, residual: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    seen, others = (torch.randn(count, 8, 10, 10, generator=generator) for count in (96, 32))
    alternative, call = alternative_of({"kind": kind}), Call(inputs=others)
    plain = _drafted(residual, call, alternative).block
    fitted = _drafted(residual, call, alternative, Call(inputs=seen)).block
    assert _error(fitted, residual, call) < _error(plain, residual, call)


class _Scaled(nn.Linear):
    """Its weights are scaled when they are used (an equalised learning rate)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight * 0.25, self.bias)


class _Causal(nn.Conv1d):
    """It pads what it takes itself, on one side."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(input, ((self.kernel_size[0] - 1), 0)))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [((_Scaled(8, 16), _Scaled(16, 8)), (64, 8)), ((_Causal(8, 16, 3), _Causal(16, 8, 3)), (32, 8, 20))],
    ids=["scaled", "causal"],
)
def test_a_layer_that_does_more_than_its_weights_say_is_not_fitted(
    layers: tuple[nn.Module, nn.Module], shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(1)
    block = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval().requires_grad_(False)
    seen, others = (torch.randn(*shape, generator=generator) for _ in range(2))
    alternative, call = alternative_of({"kind": "narrower"}), Call(inputs=others)
    last = _drafted(block, call, alternative, Call(inputs=seen)).block[2].weight  # type: ignore[index]
    columns = {tuple(column.flatten().tolist()) for column in block[2].weight.unbind(1)}  # type: ignore[operator]
    assert {tuple(column.flatten().tolist()) for column in last.unbind(1)} < columns


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["narrower", "linear", "low-rank"])
def test_samples_on_a_gpu_fit_a_block_that_stays_where_it_is(kind: str, residual: nn.Module) -> None:
    seen, new = torch.randn(2, 256, 8, 10, 10, generator=torch.Generator().manual_seed(1))
    call, alternative = Call(inputs=new), alternative_of({"kind": kind})
    torch.manual_seed(0)
    here = _drafted(residual, call, alternative, Call(inputs=seen)).block
    torch.manual_seed(0)
    there = _drafted(residual, call, alternative, Call(inputs=seen.cuda())).block
    assert {each.device.type for each in there.parameters()} == {"cpu"}
    assert _error(there, residual, call) == pytest.approx(_error(here, residual, call), rel=0.01)


def test_the_original_is_left_alone(residual: nn.Module, samples: torch.Tensor) -> None:
    before = {name: value.clone() for name, value in residual.state_dict().items()}
    for row in ROWS:
        try:
            _drafted(residual, Call(inputs=samples[:2]), alternative_of(row), Call(inputs=samples))
        except SpaceError:
            continue
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())


def test_a_stand_in_keeps_pixels_and_tokens_in_their_places() -> None:
    """Images have their channels second, tokens last; a stride is the stand-in's own."""
    image = nn.Conv2d(4, 6, 3, stride=2, padding=1).eval()
    call = Call(inputs=torch.randn(64, 4, 9, 7))
    block = _drafted(image, call, alternative_of({"kind": "linear"}), call).block
    with torch.no_grad():
        assert call.run(block).shape == (64, 6, 5, 4)
    tokens = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5)).eval()
    call = Call(inputs=torch.randn(32, 7, 5))
    block = _drafted(tokens, call, alternative_of({"kind": "linear"}), call).block
    with torch.no_grad():
        assert _error(block, tokens, call) < 0.5 * float(call.run(tokens).var())


@pytest.mark.parametrize(("rectified", "strides"), [(True, 1), (False, 2)])
def test_one_convolution_gives_nothing_negative_where_the_block_does_not(rectified: bool, strides: int) -> None:
    layers = [
        nn.Conv2d(4, 6, 3, stride=strides, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
    ]
    block = nn.Sequential(*layers, *[nn.ReLU()] * rectified).eval()
    call = Call(inputs=torch.randn(64, 4, 9, 7))
    draft = _drafted(block, call, alternative_of({"kind": "convolution"}), call)
    with torch.no_grad():
        given = call.run(draft.block)
        again = fill(changed(copy.deepcopy(block), draft.changes), draft.block.state_dict())
        assert torch.equal(call.run(again), given)
    assert given.shape == call.run(block).shape
    assert bool((given >= 0).all()) == rectified
    tokens = nn.Linear(5, 5)
    with pytest.raises(SpaceError, match="no image of C x H x W"):
        _drafted(tokens, Call(inputs=torch.randn(2, 7, 5)), alternative_of({"kind": "convolution"}))


def test_all_alternatives_are_described() -> None:
    assert set(ALTERNATIVES) >= {row["kind"] for row in ROWS}


def test_a_strided_stand_in_of_few_channels_can_be_trained() -> None:
    """Channels last, as trainings have them: a strided 1x1 convolution of three channels ends the process there."""
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1).eval()
    call = Call(inputs=torch.randn(16, 3, 40, 40))
    block = _drafted(stem, call, alternative_of({"kind": "linear"}), call).block.requires_grad_(True)
    block = block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for _ in range(4):
        outputs = block(call.inputs.to(memory_format=torch.channels_last))
        torch.autograd.backward(outputs.pow(2).mean())
    assert all(parameter.grad is not None for parameter in block.parameters())


def test_layers_that_work_in_place_change_nothing_that_is_learned_from() -> None:
    """What a block was given and gave is what it was then, and its samples stay as they are."""
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)).requires_grad_(False)
    inputs = torch.randn(4, 3, 5, 5)
    given = inputs.clone()
    seen = observed(model, ["0", "1"], inputs)
    assert torch.equal(seen["0"][0].inputs, given)
    assert torch.equal(seen["1"][1], model[1](given.relu()))
    call = Call(inputs=given.clone())
    call.run(model)
    assert torch.equal(call.inputs, given)
    rows = torch.randn(64, 3, 5, 5)
    exact = _drafted(model, Call(inputs=rows[:2]), _Silent(), Call(inputs=rows)).block
    with torch.no_grad():
        torch.testing.assert_close(exact[1].weight, model[1].weight, atol=0.02, rtol=0.02)


class _Silent(Alternative):
    """Forgets the weights of the convolution: only the fit can bring them back."""

    name = "silent"

    def __init__(self) -> None:
        super().__init__(Section())

    def change(self, draft: Draft) -> str:
        layer = draft.block.get_submodule("1")
        with torch.no_grad():
            layer.weight.zero_()  # type: ignore[union-attr, operator]
        draft.set("1", groups=1)
        return ""


def test_what_is_set_of_a_layer_that_was_put_is_written_down_with_it(residual: nn.Module) -> None:
    draft = Draft(Original(block=residual, call=Call(inputs=torch.randn(2, 8, 6, 6))))
    draft.set("conv2", padding_mode="reflect")  # of a layer that is gone
    draft.put("conv2", nn.Sequential(nn.Conv2d(8, 8, 3)))
    draft.set("conv2.0", padding=(2, 2), dilation=(2, 2))
    draft.put("conv1", nn.Conv2d(8, 8, 1))
    draft.set("conv1", padding=(2, 2), stride=(1, 1))
    draft.put("conv1", nn.Conv2d(8, 8, 1))
    draft.set("conv1", padding=(1, 1))
    draft.set("conv1", dilation=(2, 2))
    draft.block.conv1.weight = nn.Parameter(torch.randn(8, 8, 2, 2))
    again = fill(changed(copy.deepcopy(residual), json.loads(json.dumps(draft.changes))), draft.block.state_dict())
    with torch.no_grad():
        assert torch.equal(draft.call.run(again), draft.call.run(draft.block))


class Direct(Alternative):
    """Changes the block itself."""

    name, Settings = "direct", Section

    def __init__(self, what: str) -> None:
        super().__init__(Section())
        self.what = what

    def change(self, draft: Draft) -> str:
        layer: Any = draft.block.get_submodule("conv2")
        if self.what == "bias":
            layer.bias = nn.Parameter(torch.zeros(8))
        elif self.what == "padding":
            layer.padding, layer.padding_mode = (0, 0), "zeros"
            layer.weight = nn.Parameter(layer.weight[:, :, 1:2, 1:2].clone())
        elif self.what == "stride":
            layer.stride, layer.padding = (2, 2), (4, 4)
        else:
            draft.set("conv2", anything={1, 2})
        return ""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("bias", r"\(weights conv2\.bias\): change the block by draft\.put and draft\.set"),
        ("padding", r"\(other shapes\)"),
        ("stride", r"\(other outputs\)"),
        ("json", r"\(TypeError: Object of type set is not JSON serializable\)"),
    ],
)
def test_what_a_plug_in_changes_and_does_not_write_down_is_refused(what: str, said: str, residual: nn.Module) -> None:
    with pytest.raises(SpaceError, match="a change that is not written down " + said):
        _drafted(residual, Call(inputs=torch.randn(2, 8, 6, 6)), Direct(what))
