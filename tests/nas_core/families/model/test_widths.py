"""A block cut to some of its channels computes what the whole one does with the others silenced."""

import copy
import json
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.families.model.assembling import calls_of, drafted
from nas_core.families.model.draft import Call, Draft, Original, rounded
from nas_core.families.model.rebuild import OutOfTuple, changed, fill
from nas_core.families.model.splitting import split
from nas_core.families.model.widths import Width, indices
from nas_core.families.trained_model import alternative_of

import timm  # isort: skip
from timm.layers.mlp import SwiGLU  # isort: skip

# model, side in pixels, whether all its inner norms leave channels apart
MODELS = [
    ("resnet18", 64, True),
    ("resnet50", 64, True),
    ("resnext50_32x4d", 64, True),
    ("regnety_002", 64, True),
    ("mobilenetv3_small_050", 64, True),
    ("convnext_atto", 64, True),
    ("convnextv2_atto", 64, False),  # its response normalisation is over channels
    ("vit_tiny_patch16_224", 224, True),
    ("eva02_tiny_patch14_224", 224, True),
    ("densenet121", 64, True),
]
MOST_BLOCKS = 3


def _model(name: str) -> nn.Module:
    model = timm.create_model(name, num_classes=5).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # no layer may be silent, as new models' last ones are
        scale, shift = (0.5 / parameter[0].numel() ** 0.5, 0.0) if parameter.ndim > 1 else (0.3, 1.0)
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + shift)
    return model


def _blocks(name: str, side: int) -> Iterator[tuple[nn.Module, Call]]:
    model = _model(name)
    inputs = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    places = [place.path for place in split(model, inputs).places]
    chosen = places[:: max(1, len(places) // MOST_BLOCKS)]
    calls = calls_of(model, chosen, inputs)
    for path in chosen:
        yield model.get_submodule(path), calls[path]


def _silenced(block: nn.Module, call: Call, width: Width, kept: list[int]) -> torch.Tensor:
    """What the block gives where the layers that take the width see only the channels kept."""
    handles = []
    for cut in width.cuts:
        if cut.side == "columns":
            channels = indices(cut, width, kept)

            def silence(
                layer: nn.Module, inputs: tuple[torch.Tensor, ...], channels: torch.Tensor = channels
            ) -> object:
                axis = inputs[0].ndim - 1 if isinstance(layer, nn.Linear) else 1
                shape = [1] * inputs[0].ndim
                shape[axis] = -1
                mask = torch.zeros(inputs[0].shape[axis]).index_fill_(0, channels, 1.0)
                return (inputs[0] * mask.reshape(shape), *inputs[1:])

            handles.append(block.get_submodule(cut.path).register_forward_pre_hook(silence))
    try:
        with torch.no_grad():
            return call.run(block)
    finally:
        for handle in handles:
            handle.remove()


def _cut_and_silenced(original: Original, width: Width, units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the block gives with so many units of the width, and what it gives where the others are silent."""
    draft = Draft(original)
    rows = draft.importance(width).reshape(width.parts, -1)
    best = torch.topk(rows, units // width.parts, dim=1).indices
    kept = (best + rows.shape[1] * torch.arange(width.parts)[:, None]).flatten().tolist()
    draft.narrow(width, units)
    with torch.no_grad():
        return original.call.run(draft.block), _silenced(original.block, original.call, width, kept)


@pytest.mark.parametrize(("name", "side", "apart"), MODELS, ids=[row[0] for row in MODELS])
def test_a_narrowed_block_is_the_block_with_its_other_channels_silenced(name: str, side: int, apart: bool) -> None:
    num_widths = 0
    for block, call in _blocks(name, side):
        original = Original(block=block, call=call)
        for width in original.widths:
            cut, wanted = _cut_and_silenced(original, width, max(1, width.units // 2))
            tolerance = 1e-5 if apart else 0.1
            assert float((cut - wanted).abs().max()) <= tolerance * float(wanted.abs().max()), width.cuts
            num_widths += 1
    assert num_widths >= 2


def test_what_the_block_shares_with_others_is_not_narrowed() -> None:
    block = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    call = Call(inputs=torch.randn(2, 4, 6, 6))
    (width,) = Original(block=block, call=call).widths
    assert (width.channels, [cut.path for cut in width.cuts]) == (8, ["0", "2"])


def test_a_gate_on_what_comes_in_is_no_inner_width() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reduce, self.expand, self.out = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.out(x * self.expand(self.reduce(x.mean((2, 3), keepdim=True))).sigmoid())
            return out

    original = Original(block=Gated().eval(), call=Call(inputs=torch.randn(2, 6, 5, 5)))
    assert [width.cuts[0].path for width in original.widths] == ["reduce"]  # `expand` meets the block's own input


class Attention(nn.Module):
    """Rows of ``qkv`` as queries, keys and values of all heads, head by head, or channel by channel."""

    def __init__(self, order: str = "three", normalised: bool = False) -> None:
        super().__init__()
        self.num_heads, self.order = 4, order
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(4) if normalised else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x)
        if self.order == "heads":
            q, k, v = qkv.reshape(batch, tokens, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        elif self.order == "channels":
            q, k, v = qkv.reshape(batch, tokens, -1, 3, self.num_heads).permute(3, 0, 4, 1, 2)
        else:
            q, k, v = qkv.reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(self.norm(q), k, v)
        given: torch.Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return given


@pytest.mark.parametrize("normalised", [False, True])
def test_heads_are_cut_only_where_their_rows_stand_as_is_thought(normalised: bool) -> None:
    call = Call(inputs=torch.randn(2, 5, 16))
    originals = [Original(block=Attention(order, normalised).eval(), call=call) for order in ("three", "heads")]
    for original in originals:
        (width,) = (each for each in original.widths if each.heads_of is not None)
        assert width.units == 4
        torch.testing.assert_close(*_cut_and_silenced(original, width, 2))
    other = Original(block=Attention("channels", normalised).eval(), call=call)
    assert not [width for width in other.widths if width.heads_of is not None]


class Separate(nn.Module):
    """Attention with a layer each for queries, keys and values; its class may not say how many heads it has."""

    def __init__(self, attribute: str = "num_heads", normalised: bool = False, is_strided: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.norm = nn.LayerNorm(4) if normalised else nn.Identity()
        self.attribute, self.is_strided = attribute, is_strided
        setattr(self, attribute, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        heads: int = getattr(self, self.attribute)
        if self.is_strided:
            shape, order = (batch, tokens, -1, heads), (0, 3, 1, 2)
        else:
            shape, order = (batch, tokens, heads, -1), (0, 2, 1, 3)
        q, k, v = (layer(x).reshape(shape).permute(order) for layer in (self.q, self.k, self.v))
        out = nn.functional.scaled_dot_product_attention(self.norm(q), self.norm(k), v)
        given: torch.Tensor = self.o((out.permute(0, 2, 3, 1) if self.is_strided else out.transpose(1, 2)).flatten(2))
        return given


class Scaled(nn.Module):
    """As in a BEiT, a block scales what its attention gives by weights of its own, and gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.scale = Separate(), nn.Parameter(torch.full((16,), 0.5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x + self.scale * self.attention(x),)


def test_a_blocks_own_scale_does_not_hide_its_layers() -> None:
    torch.manual_seed(0)
    original = Original(block=OutOfTuple(Scaled(), 0).eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    assert (width.units, width.heads_of) == (4, "full.attention")
    torch.testing.assert_close(*_cut_and_silenced(original, width, 2))


class Named(Separate):
    """As in a DistilBERT, the class counts on heads that are as wide together as what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], self.num_heads, self.dim // self.num_heads)
        q, k, v = (layer(x).reshape(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        given: torch.Tensor = self.o(out.reshape(*x.shape[:2], self.dim))
        return given


def test_heads_are_fewer_where_the_class_names_their_width_otherwise() -> None:
    torch.manual_seed(0)
    original = Original(block=Named().eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    assert (width.units, width.heads_of) == (4, "")
    torch.testing.assert_close(*_cut_and_silenced(original, width, 2))


class Clip(Separate):
    """As in a CLIP, all heads together are taken to be as wide as the tokens that come in; a mask may be given."""

    def __init__(self) -> None:
        super().__init__()
        self.v.bias = None

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)
        given: torch.Tensor = self.o(out.reshape(x.shape))
        return given


class Blip(nn.Module):
    """The same with one layer to queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.projection = nn.Linear(16, 48, bias=False), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        shape = (*x.shape[:2], 3, self.num_heads, x.shape[2] // self.num_heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)
        given: torch.Tensor = self.projection(out.flatten(2))
        return given


@pytest.mark.parametrize("kind", [Clip, Blip])
def test_attention_that_counts_on_all_heads_is_written_anew_with_fewer(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    block, inputs = kind().eval(), torch.randn(2, 5, 16)
    original = Original(block=block, call=Call(inputs=inputs, context=(None,)))
    assert not original.widths
    assert original.opened is not None
    torch.testing.assert_close(original.opened.block(inputs), block(inputs))
    (width,) = original.opened.widths
    assert width.units == 4
    torch.testing.assert_close(*_cut_and_silenced(original.opened, width, 2))
    draft = drafted(original, alternative_of({"kind": "fewer-heads", "ratio": 0.5}))
    again = fill(changed(copy.deepcopy(block), json.loads(json.dumps(draft.changes))), draft.block.state_dict())
    assert torch.equal(again.eval()(inputs, None), draft.block(inputs, None))
    masked = Original(block=block, call=Call(inputs=inputs, context=(torch.zeros(5, 5),)))
    assert masked.opened is None  # of other inputs it may leave tokens out


@pytest.mark.parametrize("attribute", ["num_heads", "n_heads", "count"])
@pytest.mark.parametrize("normalised", [False, True])
def test_what_queries_keys_and_values_apart_give_is_cut_by_heads(attribute: str, normalised: bool) -> None:
    torch.manual_seed(0)
    original = Original(block=Separate(attribute, normalised).eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    if attribute == "count":  # nobody knows the number of heads: each keeps as many channels
        assert (width.units, width.parts, [cut.path for cut in width.cuts]) == (16, 4, ["v", "o"])
    else:
        assert (width.units, width.heads_of, [cut.path for cut in width.cuts]) == (4, "", ["q", "k", "v", "o"])
    torch.testing.assert_close(*_cut_and_silenced(original, width, width.units // 2))


# model, side in pixels: tables of positions of the module itself, of one in it, and with rows head by head
WINDOWED = [("swin_tiny_patch4_window7_224", 224), ("maxvit_tiny_tf_224", 224), ("maxvit_pico_rw_256", 256)]


@pytest.mark.parametrize(("name", "side"), WINDOWED)
def test_heads_take_their_tables_with_them(name: str, side: int) -> None:
    num_tables = 0
    for block, call in _blocks(name, side):
        original = Original(block=block, call=call)
        for width in (each for each in original.widths if each.heads_of is not None):
            cut, wanted = _cut_and_silenced(original, width, width.units // 2)
            assert float((cut - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
            draft = drafted(original, alternative_of({"kind": "fewer-heads", "ratio": 0.5}))
            again = fill(changed(copy.deepcopy(block), json.loads(json.dumps(draft.changes))), draft.block.state_dict())
            with torch.no_grad():
                torch.testing.assert_close(call.run(again.eval()), call.run(draft.block), rtol=1e-6, atol=1e-6)
            num_tables += len(width.tables)
    assert num_tables


class Grouped(nn.Module):
    """As in a LLaMA, several heads of queries share one of keys and values."""

    def __init__(self, interleaved: bool) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(24, 32), nn.Linear(32, 24)
        self.k_proj, self.v_proj = nn.Linear(24, 16), nn.Linear(24, 16)
        self.num_heads, self.num_key_value_heads, self.interleaved = 8, 4, interleaved

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        times = self.num_heads // self.num_key_value_heads
        again = (
            each.repeat(1, times, 1, 1) if self.interleaved else each.repeat_interleave(times, 1) for each in (k, v)
        )
        given: torch.Tensor = self.o_proj(
            nn.functional.scaled_dot_product_attention(q, *again).transpose(1, 2).flatten(2)
        )
        return given


def test_heads_that_share_keys_stay_together() -> None:
    torch.manual_seed(0)
    original = Original(block=Grouped(interleaved=False).eval(), call=Call(inputs=torch.randn(2, 5, 24)))
    (width,) = original.widths
    assert (width.units, width.heads_of) == (4, "")
    torch.testing.assert_close(*_cut_and_silenced(original, width, 3))
    draft = drafted(original, alternative_of({"kind": "fewer-heads", "ratio": 0.5}))
    assert (draft.block.num_heads, draft.block.num_key_value_heads, draft.block.q_proj.out_features) == (4, 2, 16)
    sampled = Original(block=original.block, call=original.call, samples=original.call)
    assert Draft(sampled).importance(width).shape == (4,)
    apart = Original(block=Grouped(interleaved=True).eval(), call=original.call)
    assert not [each for each in apart.widths if each.heads_of is not None]  # rows do not stand as is thought


class Table(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(25, heads))

    def forward(self, size: int) -> torch.Tensor:
        return self.values.view(size, size, -1).permute(2, 0, 1)


class Asking(Separate):
    """As in a BEiT of transformers, a table is asked for by a number."""

    def __init__(self) -> None:
        super().__init__("num_heads", False)
        self.table = Table(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, self.table(x.shape[1]))
        given: torch.Tensor = self.o(out.transpose(1, 2).flatten(2))
        return given


def test_a_module_that_is_called_without_a_tensor_hides_no_width() -> None:
    torch.manual_seed(0)
    original = Original(block=Asking().eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    assert [table.path for table in width.tables] == ["table"]
    torch.testing.assert_close(*_cut_and_silenced(original, width, 2))


class Fused(nn.Module):
    """As in a GPT-2, one layer gives queries, keys and values, which the class takes apart by their width."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.num_heads, self.head_dim, self.split_size = 4, 4, 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], self.num_heads, self.head_dim)
        q, k, v = (each.reshape(shape).transpose(1, 2) for each in self.c_attn(x).split(self.split_size, 2))
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        given: torch.Tensor = self.c_proj(out.transpose(1, 2).flatten(2))
        return given


def test_heads_are_fewer_where_one_layer_gives_all_three_as_in_a_gpt2() -> None:
    torch.manual_seed(0)
    original = Original(block=Fused().eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    assert (width.units, width.heads_of) == (4, "")
    torch.testing.assert_close(*_cut_and_silenced(original, width, 2))


class Beside(nn.Module):
    """As in a BERT, the projection stands beside the module that has the heads, which has no such layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.output = Separate(), nn.Sequential(nn.Linear(16, 16))
        self.inner.o = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = x + self.output(self.inner(x))
        return given


def test_heads_are_found_where_the_projection_stands_beside_them() -> None:
    torch.manual_seed(0)
    original = Original(block=Beside().eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    (width,) = original.widths
    paths = ["inner.q", "inner.k", "inner.v", "output.0"]
    assert (width.units, width.heads_of, [cut.path for cut in width.cuts]) == (4, "inner", paths)
    torch.testing.assert_close(*_cut_and_silenced(original, width, 2))


def test_channels_that_stand_in_an_order_that_is_not_known_stay() -> None:
    original = Original(block=Separate(is_strided=True).eval(), call=Call(inputs=torch.randn(2, 5, 16)))
    assert not original.widths


def test_layers_that_are_multiplied_have_one_width() -> None:
    original = Original(block=SwiGLU(8, 12).eval(), call=Call(inputs=torch.randn(2, 5, 8)))
    (width,) = original.widths
    assert sorted((cut.path, cut.side) for cut in width.cuts) == [
        ("fc1_g", "rows"),
        ("fc1_x", "rows"),
        ("fc2", "columns"),
    ]
    torch.testing.assert_close(*_cut_and_silenced(original, width, 6))


class PixelNorm(nn.Module):
    """Over channels, its weights as images: 1 x C x 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / x.square().mean(1, keepdim=True).add(1e-6).sqrt()


@pytest.mark.parametrize(
    ("norm", "group"),
    [(nn.GroupNorm(4, 12), 3), (nn.GroupNorm(1, 12), 1), (nn.GroupNorm(12, 12), 1), (PixelNorm(12), 1)],
)
def test_a_norms_groups_are_left_out_whole_and_its_weights_wherever_they_stand(norm: nn.Module, group: int) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 12, 1), norm, nn.ReLU(), nn.Conv2d(12, 4, 1)).eval()
    original = Original(block=block, call=Call(inputs=torch.randn(2, 4, 5, 5)))
    (width,) = original.widths
    assert (width.channels, width.group) == (12, group)
    cut, wanted = _cut_and_silenced(original, width, width.units // 2)
    if not isinstance(norm, PixelNorm) and norm.num_groups > 1:  # type: ignore[operator]
        torch.testing.assert_close(cut, wanted)
    again = Draft(original)
    again.narrow(width, width.units // 2)
    rebuilt = fill(changed(copy.deepcopy(block), again.changes), again.block.state_dict())
    with torch.no_grad():
        assert torch.equal(original.call.run(rebuilt), cut)


@pytest.mark.parametrize(
    ("convolution", "norm", "shape"),
    [
        (nn.Conv1d, nn.BatchNorm1d, (4, 8)),
        (nn.Conv1d, nn.BatchNorm1d, (4, 4)),
        (nn.Conv3d, nn.BatchNorm3d, (4, 5, 5, 5)),
    ],
)
def test_convolutions_of_signals_and_of_volumes_are_narrowed_as_images_are(
    convolution: type[nn.Module], norm: type[nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layers = [convolution(4, 8, 3, padding=1), norm(8), nn.ReLU(), convolution(8, 8, 3, padding=1, groups=8)]
    block = nn.Sequential(*layers, nn.ReLU(), convolution(8, 4, 3, padding=1)).eval()
    block[1].running_var.uniform_(0.5, 2.0)  # type: ignore[operator,union-attr]
    original = Original(block=block, call=Call(inputs=torch.randn(2, *shape)))
    (width,) = original.widths
    assert [cut.path for cut in width.cuts] == ["0", "1", "3", "5"]
    torch.testing.assert_close(*_cut_and_silenced(original, width, 4))


def test_a_width_that_its_class_knows_leaves_others_to_be_cut() -> None:
    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.b(self.a(x).relu())
            out: torch.Tensor = self.c(inner.reshape(len(x), 8, 5, 5).relu())
            return out

    original = Original(block=Known().eval(), call=Call(inputs=torch.randn(2, 4, 5, 5)))
    assert [width.cuts[0].path for width in original.widths] == ["a"]


@pytest.mark.parametrize(
    ("units", "ratio", "multiple", "wanted"), [(64, 0.5, 8, 32), (20, 0.5, 8, 10), (100, 0.5, 8, 48), (3, 0.1, 8, 1)]
)
def test_widths_are_multiples_where_that_costs_little(units: int, ratio: float, multiple: int, wanted: int) -> None:
    assert rounded(units, ratio, multiple) == wanted
