"""Models as people write them: weights that are shared or computed, layers called by name."""

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm
from torch.nn.utils.parametrizations import spectral_norm as spectral
from torch.nn.utils.parametrizations import weight_norm as weight

from nas_core.base.errors import DataError, NasError, SpaceError
from nas_core.families.model import rebuild
from nas_core.families.model.splitting import split
from nas_core.families.trained_model import TrainedModel
from nas_core.workloads.workload import Sample

pytestmark = pytest.mark.situations

SAMPLE = Sample(shape=(3, 16, 16), num_outputs=5)
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(input=self.norm(self.first(x)).relu())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def model() -> nn.Module:
    torch.manual_seed(0)
    made = Model()
    made.blocks.train()(torch.randn(8, 16, 16, 16))  # statistics of its own
    return made.eval()


def tied() -> nn.Module:
    made = model()
    made.blocks[2].first.weight = made.blocks[1].first.weight
    return made


def shared() -> nn.Module:
    made = model()
    made.blocks[3].norm = made.blocks[1].norm
    made.blocks[2].second = made.blocks[0].second
    return made


def computed(way) -> nn.Module:
    made = model()
    for block in made.blocks:
        block.first, block.second = way(block.first), way(block.second)
    return made


def weight_normed() -> nn.Module:
    return computed(weight)


def spectral_normed() -> nn.Module:
    return computed(spectral)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def weight_normed_as_of_old() -> nn.Module:
    return computed(weight_norm)


def spectral_normed_as_of_old() -> nn.Module:
    return computed(spectral_norm)


def in_halves() -> nn.Module:
    return model().half()


def in_parallel() -> nn.Module:
    return nn.DataParallel(model())


def compiled() -> nn.Module:
    return torch.compile(model())


def compiled_in_place() -> nn.Module:
    made = model()
    made.compile()
    made.blocks[1].compile()
    return made


def compiled_in_parts() -> nn.Module:
    made = model()
    for place in range(4):
        made.blocks[place] = torch.compile(made.blocks[place])
    made.blocks[0]._orig_mod.first = torch.compile(made.blocks[0]._orig_mod.first)
    made.blocks[3] = nn.DataParallel(made.blocks[2])
    return made


class Several(Model):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": super().forward(x), "features": x}


def scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(3, 5))


def scripted_in_part() -> nn.Module:
    made = model()
    made.blocks[2] = torch.jit.script(nn.ReLU())
    return made


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(16, 3), nn.Flatten(), nn.LazyLinear(5))


def no_module() -> int:
    return 5


def fresh() -> nn.Module:
    return Model()


class Stateful(Block):
    """Its state holds more than tensors."""

    factor = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * super().forward(x)

    def get_extra_state(self) -> dict[str, float]:
        return {"factor": self.factor}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.factor = state["factor"]


def stateful() -> nn.Module:
    made = model()
    for index, block in enumerate(list(made.blocks)):
        made.blocks[index] = Stateful()
        made.blocks[index].load_state_dict(block.state_dict() | {"_extra_state": {"factor": 0.5}})
    return made


MAKERS = [
    stateful,
    model,
    tied,
    shared,
    weight_normed,
    spectral_normed,
    weight_normed_as_of_old,
    spectral_normed_as_of_old,
]


def family_of(maker, sample=SAMPLE, **settings) -> TrainedModel:
    given = TrainedModel.Settings.model_validate({"model": f"{__name__}:{maker.__name__}", **settings})
    return TrainedModel(given, sample)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@torch.no_grad()
def test_alternatives_stand_and_are_rebuilt(maker, tmp_path):
    teacher = maker().eval()
    torch.save(teacher.state_dict(), tmp_path / "mine.pth")
    outputs = teacher(IMAGES)
    library = [{"kind": "narrower", "ratio": 0.5}, {"kind": "linear"}]
    family = family_of(maker, checkpoint=str(tmp_path / "mine.pth"), library=library)
    assert torch.equal(family.teacher(IMAGES), outputs)
    narrowed = [
        place.path
        for place, kinds in zip(family.structure.split.places, family.structure.candidates, strict=True)
        if kinds[0].spec.kind == "narrower"
    ]
    assert narrowed == [f"blocks.{index}" for index in range(4)]
    genotype = family.space.parse("-".join(["1"] * family.space.num_positions))
    network = family.module(genotype).eval()
    assert network.get_submodule("blocks.1.first").out_channels == 8
    weights = load(save(network.state_dict()))
    origin = family.origin(genotype)
    again = rebuild.fill(rebuild.changed(rebuild.made(copy.deepcopy(origin["model"])), origin["changes"]), weights)
    assert torch.equal(again.eval()(IMAGES), network(IMAGES))


@pytest.mark.parametrize(
    "maker",
    [in_halves, in_parallel, compiled, compiled_in_place, compiled_in_parts],
    ids=lambda maker: maker.__name__,
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # of torch.compile's own imports
def test_a_model_is_what_it_was_made_of(maker):
    places = family_of(maker).structure.split.places
    assert [place.path for place in places] == ["stem", *(f"blocks.{index}" for index in range(4))]
    made = rebuild.whole({"name": f"{__name__}:{maker.__name__}"})
    assert list(made.state_dict()) == list(model().state_dict())
    assert all(module._compiled_call_impl is None for module in made.modules())


@pytest.mark.parametrize(
    ("maker", "said"),
    [
        (Several, r"Several: found outputs of type dict \(logits, features\), expected one tensor"),
        (no_module, "it gives int, not a torch"),
        (lazy, "its layers get their sizes when it is called first"),
        pytest.param(
            scripted,
            "it gives a module of TorchScript: give the torch",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
        pytest.param(
            scripted_in_part,
            r"a module of TorchScript at blocks\.2: give the torch",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_no_model_to_change_is_one_line(maker, said):
    with pytest.raises(NasError, match=said):
        _ = family_of(maker).structure


@torch.no_grad()
def test_the_transposed_linear_layers_of_a_library_are_linear_layers():
    layer = type("Conv1D", (nn.Module,), {"__module__": "transformers.pytorch_utils"})()
    layer.weight, layer.bias = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))
    made = rebuild.plain(nn.Sequential(layer))[0]
    inputs = torch.randn(4, 3)
    assert isinstance(made, nn.Linear)
    torch.testing.assert_close(made(inputs), torch.addmm(layer.bias, inputs, layer.weight))


def test_a_model_of_other_channels_is_one_line():
    with pytest.raises(SpaceError, match="to have 3 channels, but got 1"):
        _ = family_of(model, Sample(shape=(1, 16, 16), num_outputs=5)).structure


def test_a_forgotten_checkpoint_is_said():
    with pytest.raises(DataError, match=r"other weights each time it is made.*--checkpoint"):
        _ = family_of(fresh).teacher
    assert torch.equal(family_of(model).teacher(IMAGES), model()(IMAGES))


def test_a_model_that_is_trained_from_its_start_is_the_same_space_in_every_process():
    assert family_of(fresh).space.space_id == family_of(fresh).space.space_id
    assert family_of(fresh).reference.code != family_of(model).reference.code


def test_a_function_that_a_file_does_not_have_is_said_by_the_file_s_name(tmp_path):
    (tmp_path / "mine.py").write_text("")
    settings = TrainedModel.Settings(model=f"{tmp_path}/mine.py:build")
    with pytest.raises(NasError, match=r"mine\.py has no build, expected a model that can be made"):
        _ = TrainedModel(settings, SAMPLE).structure


class Reader(nn.Module):
    """Tokens through torch's own encoder, each of which sees those before it where ``causal``."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, nn.LayerNorm(16), enable_nested_tensor=False)
        self.causal, self.head = causal, nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        return self.head(self.encoder(tokens, mask, is_causal=self.causal).mean(1))


@pytest.mark.parametrize("causal", [False, True])
def test_every_layer_of_torchs_encoder_is_a_position(causal):
    torch.manual_seed(0)
    model, tokens = Reader(causal).eval(), torch.randn(2, 16, 3, 3)
    with torch.no_grad():
        expected, names = model(tokens), list(model.state_dict())
        given = rebuild.plain(model)
        torch.testing.assert_close(given(tokens), expected)
    assert list(given.state_dict()) == names
    assert [place.path for place in split(given, tokens).places] == [f"encoder.layers.{index}" for index in range(4)]


class Casting(Model):
    """Computes in half precision by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().forward(x).float()


class Halved(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.bfloat16()).float()


def casting() -> nn.Module:
    torch.manual_seed(0)
    return Casting().eval()


class Doubled(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double()).float()


def halved() -> nn.Module:
    return Halved().bfloat16()


def doubled() -> nn.Module:
    return Doubled().double()


def test_blocks_of_a_model_that_casts_by_itself_are_run_in_full_precision():
    family = TrainedModel(TrainedModel.Settings(model=f"{__file__}:casting"), SAMPLE)
    assert [place.path for place in family.structure.split.places][1:] == [f"blocks.{index}" for index in range(4)]
    for call in family.structure.calls.values():
        assert call.inputs.dtype == torch.float32
    kinds = {candidate.spec.kind for row in family.structure.candidates for candidate in row}
    assert kinds >= {"narrower", "depthwise-separable", "linear", "skip"}


@pytest.mark.parametrize("maker", ["halved", "doubled"])
def test_a_model_that_casts_what_it_is_given_is_told_of_full_precision(maker):
    with pytest.raises(SpaceError, match="weights are brought to float32"):
        _ = TrainedModel(TrainedModel.Settings(model=f"{__file__}:{maker}"), SAMPLE).structure
