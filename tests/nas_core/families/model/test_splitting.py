"""Positions are found in models of all kinds, can be exchanged, and the model is left as it was."""

import hashlib
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from nas_core.base.errors import SpaceError
from nas_core.costs.counting import count_module
from nas_core.families import timm_compat  # noqa: F401  # torchvision is mended before timm imports it
from nas_core.families.model.alternatives import Narrower
from nas_core.families.model.assembling import calls_of, drafted
from nas_core.families.model.draft import Original
from nas_core.families.model.splitting import ENOUGH, LARGEST, self_swap, split
from nas_core.families.model.swapping import exchanged, reasons_against

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(name: str, **settings) -> nn.Module:
    """A model of timm with random weights, none of which is nought."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def state_of(model: nn.Module) -> tuple[str, list[bool], int]:
    """A hash of all tensors; training flags; how many hooks there are."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    modules = list(model.modules())
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
    return digest.hexdigest(), [module.training for module in modules], hooks


TIMM = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": 32},
    "convnext_atto": {},
    "swin_tiny_patch4_window7_224": {"img_size": 32},
    "eva02_tiny_patch14_224": {"img_size": 28},
}


@pytest.mark.parametrize("name", TIMM)
def test_a_model_of_timm_is_split_and_left_as_it_was(name):
    model = made(name, **TIMM[name]).train()
    model.get_submodule(next(path for path, _ in model.named_modules() if path.endswith("0"))).eval()
    images = IMAGES[..., :28, :28] if "eva" in name else IMAGES
    before = state_of(model)
    found = split(model, images)
    assert len(found.places) >= 4
    assert found.covered >= ENOUGH
    assert max(place.share for place in found.places) <= LARGEST
    assert self_swap(model, images, found) == {}
    assert state_of(model) == before


def test_a_residual_network_is_split_into_its_blocks():
    found = split(made("resnet18"), IMAGES)
    blocks = [place.path for place in found.places if place.kind == "BasicBlock"]
    assert blocks == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    place = next(place for place in found.places if place.path == "layer2.0")
    assert (place.in_shape, place.out_shape) == ((64, 8, 8), (128, 4, 4))
    assert place.flops == 9 * 64 * 128 * 16 + 9 * 128 * 128 * 16 + 64 * 128 * 16
    assert place.share == place.flops / found.flops


@pytest.mark.parametrize(
    ("name", "settings", "branches"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32}, ("attn", "mlp")),
        ("vit_tiny_patch16_224", {"img_size": 32, "init_values": 0.1}, ("attn", "mlp")),  # scaled before they are added
        ("vit_srelpos_small_patch16_224", {"img_size": 32, "embed_dim": 48, "num_heads": 4}, ("attn", "mlp")),
        ("mixer_s32_224", {"img_size": 32}, ("mlp_tokens", "mlp_channels")),
    ],
)
def test_the_branches_of_a_transformers_block_are_positions(name, settings, branches):
    model = made(name, **settings)
    found = split(model, IMAGES)
    inside = [(place.path, place.block) for place in found.places if place.is_branch]
    depth = len(model.blocks)
    assert inside == [(f"blocks.{i}.{branch}", f"blocks.{i}") for i in range(depth) for branch in branches]
    coarser = split(model, IMAGES, wanted=len(found.places) - depth)
    blocks = [place.path for place in coarser.places if place.path.startswith("blocks")]
    assert blocks == [f"blocks.{index}" for index in range(depth)]
    assert not any(place.is_branch for place in coarser.places)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_branches_of_blocks_that_are_too_large_are_positions(depth):
    model = made("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=depth)
    inside = [place.path for place in split(model, IMAGES).places if place.is_branch]
    assert inside == [f"blocks.{i}.{branch}" for i in range(depth) for branch in ("attn", "mlp")]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_block_with_one_branch_stays_whole(name):
    assert not any(place.is_branch for place in split(made(name), IMAGES).places)


class Branched(nn.Module):
    """Two branches, each with a norm before or behind it, added to what comes in; subclasses do something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.one, self.other = Row(), Row()

    def forward(self, x):
        x = x + self.norms[0](self.one(x))
        return self.norms[1](x + self.other(x))


class InPlace(Branched):
    def forward(self, x):
        x = x + self.one(self.norms[0](x))
        x += self.other(self.norms[1](x))
        return x


class Beside(Branched):
    def forward(self, x):
        return x + self.one(x) + self.other(self.norms[0](x))


class Scaled(Branched):
    def forward(self, x):
        return 2 * super().forward(x)


class Gated(Branched):
    def forward(self, x):
        return x.sigmoid() * super().forward(x)


class Crossed(Branched):
    def forward(self, x):
        return self.one(x) + self.other(x)


@pytest.mark.parametrize(
    ("block", "expected"),
    [(Branched, True), (InPlace, True), (Beside, True), (Scaled, True), (Gated, False), (Crossed, False)],
)
def test_branches_are_what_is_added_to_what_comes_in(block, expected):
    torch.manual_seed(0)
    found = split(nn.Sequential(*(block() for _ in range(5))), TOKENS)
    names = [f"{index}.{name}" for index in range(5) for name in ("one", "other")]
    assert [place.path for place in found.places] == (names if expected else [str(index) for index in range(5)])


@pytest.mark.parametrize("name", TIMM)
def test_costs_are_those_of_the_counter(name):
    side = 28 if "eva" in name else 32
    found = split(made(name, **TIMM[name]), IMAGES[..., :side, :side])
    assert found.flops == count_module(lambda: made(name, **TIMM[name]), (3, side, side)).flops


class Residual(nn.Module):
    """A block: two linear layers, added to the input."""

    def __init__(self, width: int = 8, hidden: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = 1.0

    def forward(self, x, shift=0.0, *, factor=1.0):
        return x + factor * self.second(relu(self.first(x))) + shift


class Own(nn.Module):
    """Five blocks that are called one by one; subclasses say how."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual() for _ in range(5)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        for index, block in enumerate(self.blocks):
            x = self.call(index, block, x)
        return self.head(x)

    def call(self, index, block, x):
        return block(x)


def own(call) -> nn.Module:
    torch.manual_seed(0)
    return type("Made", (Own,), {"call": call})()


TOKENS = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
BLOCKS = [f"blocks.{index}" for index in range(5)]


def test_a_model_of_an_own_class():
    found = split(own(Own.call), TOKENS)
    assert [place.path for place in found.places] == [*BLOCKS, "head"]
    assert found.places[0].in_shape == (3, 8)
    assert found.flops == 3 * (5 * 2 * 64 + 16)
    assert (found.covered, found.left_out) == (1.0, {})


class Row(nn.Module):
    """Two layers one after the other, without a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(self.act(self.first(x)))


class Stage(nn.Module):
    """Blocks between which tensors are copied, so that they form no chain."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x * 1)
        return x


def test_rows_of_few_layers_stay_whole_and_stages_do_not():
    torch.manual_seed(0)
    rows = nn.Sequential(*(Row() for _ in range(12)))
    assert [place.path for place in split(rows, TOKENS).places] == [str(index) for index in range(12)]
    large = nn.Sequential(*(Row() for _ in range(3)))
    assert [place.path for place in split(large, TOKENS).places][:2] == ["0.first", "0.second"]
    stages = nn.Sequential(*(Stage(Residual(), Residual()) for _ in range(5)))
    places = split(stages, TOKENS).places
    assert [place.path for place in places] == [f"{stage}.blocks.{block}" for stage in range(5) for block in (0, 1)]


def test_too_few_positions_are_split_further():
    places = split(nn.Sequential(Residual(8, 10), Residual(8, 16), Residual(8, 16)), TOKENS).places
    assert [place.path for place in places] == ["0", "1.first", "1.second", "2"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # met inside torch.export
def test_a_loaded_program_is_split_like_the_model_it_was_exported_from():
    program = torch.export.export(own(Own.call).eval(), (TOKENS,))  # for two examples and no other number
    found = split(torch.export.unflatten(program), TOKENS)
    assert [place.path for place in found.places] == [*BLOCKS, "head"]


def test_further_arguments_are_passed_on():
    model = own(lambda self, index, block, x: block(x, x.mean(), factor=index))
    found = split(model, TOKENS)
    assert [place.path for place in found.places] == [*BLOCKS, "head"]
    dropped = type("Dropped", (nn.Module,), {"forward": lambda self, x, *rest, **others: model.blocks[1](x)})()
    with torch.no_grad(), exchanged(model, {"blocks.0": dropped}):
        assert not torch.equal(model(TOKENS), own(type(model).call)(TOKENS)), "the arguments do matter"


class ChangesItsInput(Residual):
    def forward(self, x, shift=0.0, *, factor=1.0):
        return super().forward(x.relu_())


def read_again(self, index, block, x):
    return block(x) + x


@pytest.mark.parametrize(
    ("call", "path", "reason"),
    [
        (lambda self, index, block, x: block(x) * block.scale, "blocks.2", "its .scale is read"),
        (lambda self, index, block, x: block(x) * getattr(block, "scale", 3.0), "blocks.2", "its .scale is read"),
        (lambda self, index, block, x: block(block(x)) if index == 2 else block(x), "blocks.2", "it is called 2 times"),
        (
            lambda self, index, block, x: block(x=x) if index == 2 else block(x),
            "blocks.2",
            "its first argument is no tensor",
        ),
        (
            lambda self, index, block, x: block(x.transpose(0, 1)).transpose(0, 1) if index == 2 else block(x),
            "blocks.2",
            "axis 0 of its input or output is not that of the examples",
        ),
    ],
)
def test_what_cannot_be_exchanged_is_left_out_by_name(call, path, reason):
    model = own(call)
    before = state_of(model)
    found = split(model, TOKENS)
    assert found.left_out[path] == reason
    assert path not in [place.path for place in found.places]
    assert self_swap(model, TOKENS, found) == {}
    assert state_of(model) == before


def test_a_block_that_a_hook_of_the_models_hears_is_left_out():
    model, heard = own(lambda self, index, block, x: block(x)), []
    inner = next(each for each in model.blocks[2].modules() if each is not model.blocks[2])
    handles = [
        model.blocks[1].register_forward_hook(lambda _, __, output: heard.append(output)),
        inner.register_forward_pre_hook(lambda _, inputs: heard.append(inputs)),
    ]
    found = split(model, TOKENS)
    for path in ("blocks.1", "blocks.2"):
        assert found.left_out[path] == "a hook hears what it is given, or gives"
    for handle in handles:
        handle.remove()
    assert {"blocks.1", "blocks.2"} <= {place.path for place in split(model, TOKENS).places}


def test_a_block_that_returns_more_than_a_tensor_is_left_out():
    class Pair(Residual):
        def forward(self, x):
            return super().forward(x), x.mean()

    model = own(lambda self, index, block, x: block(x)[0] if index == 2 else block(x))
    model.blocks[2] = Pair()
    assert split(model, TOKENS).left_out == {"blocks.2": "it returns a tuple of 2 tensors"}


class Cache:
    """What the blocks of a language model put their keys and values into."""

    def __init__(self):
        self.layers = []


class Remembering(Residual):
    def forward(self, x, cache):
        cache.layers.append({"key": x})
        return super().forward(x)


def test_a_block_that_stores_tensors_in_what_it_is_given_is_left_out():
    """Run by itself again and again it would find there what it stored before."""
    model = own(lambda self, index, block, x: block(x, Cache()) if index == 2 else block(x))
    model.blocks[2] = Remembering()
    assert "it stores tensors in a Cache that it is given" in split(model, TOKENS).left_out["blocks.2"]


def test_a_block_that_changes_an_input_others_read_is_left_out():
    model = own(read_again)
    model.blocks[2] = ChangesItsInput()
    assert reasons_against(model, TOKENS, BLOCKS) == {"blocks.2": "with a copy of it the output differs"}
    assert "blocks.2" in split(model, TOKENS).left_out


def test_a_model_that_answers_differently_each_time():
    model = own(lambda self, index, block, x: block(x) + torch.rand(1))
    with pytest.raises(SpaceError, match="two outputs for one input"):
        split(model, TOKENS)


def test_only_and_keep():
    model = made("resnet18")
    found = split(model, IMAGES, only=["layer3.*", "layer4"], keep=["layer4.1.conv2"])
    assert [place.path for place in found.places] == ["layer3.0", "layer3.1", "layer4.0", "layer4.1.conv1"]
    for field, pattern in (("only", "layer9.*"), ("keep", "layr1")):
        with pytest.raises(SpaceError, match=rf"^space\.{field}: found {pattern}, expected a module of the model"):
            split(model, IMAGES, **{field: [pattern]})


class TwoConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.b(relu(self.a(x)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["0", "1", "2", "3", "6"]),
        ({"only": ["2"]}, ["2"]),
        ({"only": ["2", "3"]}, ["2", "3"]),
        ({"keep": ["1"]}, ["0", "2", "3", "6"]),
    ],
)
def test_large_blocks_stay_whole_where_their_layers_alone_would_be_left(asked, expected):
    """Each holds a third of the model, and has more alternatives than its convolutions."""
    torch.manual_seed(0)
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), TwoConvolutions(), TwoConvolutions(), TwoConvolutions(), *ends)
    assert [place.path for place in split(model, IMAGES, **asked).places] == expected


class Segmenter(nn.Module):
    """A classifier's layers as the backbone, and a head on what they give, as torchvision builds its segmenters."""

    def __init__(self, width):
        super().__init__()
        model = made("resnet18")
        stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
        self.backbone = nn.Sequential(stem, model.layer1, model.layer2, model.layer3, model.layer4)
        self.classifier = nn.Sequential(nn.Conv2d(512, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 5, 1))

    def forward(self, x):
        return {"out": self.classifier(nn.functional.interpolate(self.backbone(x), size=x.shape[-2:]))}


def test_of_a_model_with_a_backbone_only_that_is_changed():
    model = Segmenter(4).eval().requires_grad_(False)
    paths = [place.path for place in split(model, IMAGES).places]
    assert len(paths) >= 8
    assert all(path.startswith("backbone.") for path in paths)
    asked = [place.path for place in split(model, IMAGES, only=["*"]).places]
    assert any(path.startswith("classifier") for path in asked)


def test_a_small_backbone_is_not_what_the_model_is_about():
    paths = [place.path for place in split(Segmenter(64).eval().requires_grad_(False), IMAGES).places]
    assert any(path.startswith("classifier") for path in paths)


class Detector(nn.Module):
    """A list of images of any sizes in, a dict of boxes and scores for each out, built as torchvision's detectors."""

    def __init__(self):
        super().__init__()
        model = made("resnet18")
        stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
        self.backbone = nn.ModuleDict({"body": nn.Sequential(stem, model.layer1, model.layer2, model.layer3)})
        self.backbone["fpn"] = nn.Conv2d(256, 16, 1)
        self.backbone.forward = lambda x: {"0": self.backbone["fpn"](self.backbone["body"](x))}
        self.rpn = nn.ModuleDict({"objectness": nn.Conv2d(16, 1, 1), "boxes": nn.Conv2d(16, 4, 1)})
        self.box_head = nn.Sequential(nn.Linear(16, 2048), nn.ReLU(), nn.Linear(2048, 5))

    def forward(self, images):
        assert isinstance(images, list), "a list of images"
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        padded = [nn.functional.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images]
        features = self.backbone(torch.stack(padded))["0"]
        found = self.rpn["objectness"](features).flatten(1).topk(4).indices
        boxes = self.rpn["boxes"](features).flatten(2)
        return [
            {"boxes": box[:, index].T, "scores": self.box_head(feature.flatten(1)[:, index].T).softmax(1)}
            for box, feature, index in zip(boxes, features, found, strict=True)
        ]


def test_of_a_detector_that_takes_a_list_of_images_the_backbone_is_changed():
    model, images = Detector().eval().requires_grad_(False), [IMAGES[0], IMAGES[1, :, :24, :20]]
    before = state_of(model)
    found = split(model, images)
    blocks = [f"backbone.body.{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    assert set(blocks) <= {place.path for place in found.places}
    assert all(place.path.startswith("backbone.") for place in found.places)
    assert self_swap(model, images, found) == {}
    assert state_of(model) == before
    calls = calls_of(model, blocks, images)
    assert calls[blocks[0]].inputs.shape == (2, 64, 8, 8)
    halved = drafted(
        Original(block=model.get_submodule(blocks[0]), call=calls[blocks[0]]), Narrower(Narrower.Settings(ratio=0.5))
    )
    with exchanged(model, {blocks[0]: halved.block}):
        assert [{*each} for each in model(images)] == [{"boxes", "scores"}] * 2
    with pytest.raises(SpaceError, match="called 2 times"):  # for each image
        split(model, images, names=["box_head"])
    with pytest.raises(SpaceError, match=r"runs on a list of 2, each a float32 tensor of shape \(3, 8\)"):
        split(model, [*TOKENS])


class Boxes(nn.Module):
    """A detector as a study takes it: one tensor of images in, one of boxes out."""

    def __init__(self):
        super().__init__()
        self.detector = Detector()

    def forward(self, x):
        return torch.stack([found["boxes"] for found in self.detector(list(x))])


def test_of_a_wrapped_detector_only_the_backbone_is_changed():
    found = split(Boxes().eval().requires_grad_(False), IMAGES)
    assert len(found.places) >= 6
    assert all(place.path.startswith("detector.backbone.body.") for place in found.places[:6])


def test_positions_named_by_hand():
    model = own(lambda self, index, block, x: block(block(x)) if index == 2 else block(x) * block.scale)
    with pytest.raises(SpaceError, match="called 2 times"):
        split(model, TOKENS, names=["blocks.2"])
    with pytest.raises(SpaceError, match=r"blocks\.1: found its \.scale is read"):
        split(model, TOKENS, names=["blocks.1"])
    with pytest.raises(SpaceError, match="it is inside blocks"):
        split(own(Own.call), TOKENS, names=["blocks.1", "blocks.1.first"])
    with pytest.raises(SpaceError, match=r"There are blocks\.1"):
        split(model, TOKENS, names=["block.1"])
    found = split(own(Own.call), TOKENS, names=["blocks.4", "blocks.1.first"])
    assert [place.path for place in found.places] == ["blocks.1.first", "blocks.4"]


@pytest.mark.parametrize("wanted", [4, 6, 9, 14, 20])
def test_about_as_many_positions_as_wanted(wanted):
    found = split(made("resnet18"), IMAGES, wanted=wanted)
    assert abs(len(found.places) - wanted) <= 2
    assert found.covered >= ENOUGH
    assert max(place.share for place in found.places) <= LARGEST


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")  # users' models have it
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_what_is_no_network_is_a_named_error():
    with pytest.raises(SpaceError, match="multiply-adds"):
        split(nn.ReLU(), TOKENS)
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 2)), {nn.Linear})
    with pytest.raises(SpaceError, match="before it was quantised"):
        split(quantised, TOKENS)
    with pytest.raises(SpaceError, match="found no position, expected"):
        split(nn.Linear(8, 2), TOKENS)
    with pytest.raises(SpaceError, match=r"found no position beside what is kept \(\*\), expected"):
        split(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)), TOKENS, keep=["*"])
    with pytest.raises(SpaceError, match=r"runs on a float32 tensor of shape \(2, 3, 8\)"):
        split(nn.Linear(7, 2), TOKENS)


def test_positions_named_by_hand_may_stand_outside_of_the_backbone():
    def blocks():
        return nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))

    model = nn.Sequential(OrderedDict(backbone=blocks(), head=blocks()))
    places = split(model, torch.randn(2, 8, 8, 8), names=["backbone.1", "head.0"]).places
    assert [place.path for place in places] == ["backbone.1", "head.0"]
