"""The family of a trained model with branches: what its networks are, and what they are compared by."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.base.errors import DataError, SpaceError
from nas_core.base.plugins import import_plugin
from nas_core.costs.counting import count_module, count_parts
from nas_core.families.model import rebuild
from nas_core.families.model.alternatives import ALTERNATIVES
from nas_core.families.model.pruning import narrowed
from nas_core.families.trained_model import TrainedModel
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample
from tests.benchmarks import teachers

SAMPLE = Sample(shape=(1, 28, 28), num_outputs=5)
IMAGES = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def vit(checkpoint: str | None = None) -> TrainedModel:
    settings = TrainedModel.Settings(model=f"{teachers.__file__}:vit", arguments={"depth": 4}, checkpoint=checkpoint)
    return TrainedModel(settings, SAMPLE)


def test_positions_are_branches_and_what_networks_learn_from_is_blocks():
    family = vit()
    places = [place.path for place in family.structure.split.places]
    branches = [f"blocks.{block}.{branch}" for block in range(4) for branch in ("attn", "mlp")]
    assert [path for path in places if path.startswith("blocks")] == branches
    assert [path for path in family.teacher_places if path.startswith("blocks")] == [
        f"blocks.{block}" for block in range(4)
    ]


@pytest.mark.parametrize("name", ["vit", "resnet", "mobilenet"])
def test_the_memory_of_a_network_counts_what_goes_past_its_blocks(name):
    """By parts it is what the whole network takes; more where it is the head or stem that nothing goes past."""
    family = TrainedModel(
        TrainedModel.Settings(model=f"{teachers.__name__}:{name}"), Sample(shape=(1, 28, 28), num_outputs=10)
    )
    rng, space = np.random.default_rng(0), family.space
    base = Genotype((0,) * space.num_positions)
    for genotype in (base, *(space.sample(rng) for _ in range(4))):
        whole = count_module(partial(family.module, genotype), (1, 28, 28)).activation_bytes
        by_parts = count_parts(family.parts(genotype)).activation_bytes
        assert whole <= by_parts <= 1.2 * whole
        assert genotype != base or by_parts == whole


def test_weights_that_are_not_there_are_said_before_positions_are_looked_for(tmp_path):
    settings = TrainedModel.Settings(model=f"{teachers.__file__}:vit", checkpoint=str(tmp_path / "none.safetensors"))
    family = TrainedModel(settings, SAMPLE)
    for ask in (family.check, lambda: family.teacher):
        with pytest.raises(DataError, match=r"none\.safetensors: found no file"):
            ask()
    assert "structure" not in family.__dict__


def test_a_network_without_a_branch_is_built_again_from_plain_data(tmp_path):
    torch.save(teachers.vit(1, 5, depth=4).state_dict(), tmp_path / "mine.pth")
    family = vit(checkpoint=str(tmp_path / "mine.pth"))
    choices = []
    for position in family.space.positions:
        skipped = position.name in ("blocks.0.attn", "blocks.1.mlp")
        kinds = [block.kind for block in position.blocks]
        narrow = "fewer-heads" if "fewer-heads" in kinds else "narrower"
        is_branch = position.name.startswith("blocks")
        choices.append(kinds.index("skip" if skipped else narrow) if is_branch else 0)
    genotype = family.space.parse("-".join(map(str, choices)))
    network = family.module(genotype).eval()
    first, second = network.get_submodule("blocks.0"), network.get_submodule("blocks.1")
    assert isinstance(first, nn.Module)
    assert not list(first.attn.parameters())
    assert (first.mlp.fc1.out_features, second.attn.num_heads) == (192, 3)
    assert not list(second.mlp.parameters())
    origin = family.origin(genotype)
    again = rebuild.changed(rebuild.made(origin["model"]), origin["changes"])
    rebuild.fill(again, network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(IMAGES), network(IMAGES))


DENOISER = """
import copy

from torch import nn

class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
        layers = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1)]
        self.blocks = nn.ModuleList(nn.Sequential(*copy.deepcopy(layers)) for _ in range(3))

    def forward(self, images):
        found = self.relu(self.first(images))
        for block in self.blocks:
            found = found + block(found)
        return images + self.last(found)

def build():
    return Denoiser()
"""


UNET = """
import torch
from torch import nn

def twice(before, after):
    layers = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)

class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.middle = twice(1, 8), twice(8, 16), twice(16, 32)
        self.up2, self.up1, self.last = twice(48, 16), twice(24, 8), nn.Conv2d(8, 1, 1)

    def forward(self, images):
        first = self.down1(images)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        x = nn.functional.interpolate(self.middle(nn.functional.max_pool2d(second, 2)), scale_factor=2)
        x = nn.functional.interpolate(self.up2(torch.cat([x, second], 1)), scale_factor=2)
        return self.last(self.up1(torch.cat([x, first], 1)))
"""


def test_positions_are_blocks_where_the_layers_in_them_alone_could_not_be_narrower(tmp_path):
    (tmp_path / "model.py").write_text(UNET)
    sample = Sample(shape=(1, 16, 16), num_outputs=1, dense=True)
    family = TrainedModel(TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:UNet"), sample)
    assert [place.path for place in family.structure.split.places] == ["down1", "down2", "middle", "up2", "up1"]
    for row in family.structure.candidates:
        assert "narrower" in {each.spec.kind for each in row}


def test_positions_without_alternatives_are_left_out_with_the_reason(tmp_path):
    layers = ", ".join(f"nn.Conv2d({before}, {after}, 3)" for before, after in ((1, 4), (4, 3), (3, 4), (4, 4)))
    (tmp_path / "model.py").write_text(f"from torch import nn\n\ndef build():\n    return nn.Sequential({layers})\n")
    library = [{"kind": "grouped", "groups": 2}]
    settings = TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:build", library=library)
    found = TrainedModel(settings, Sample(shape=(1, 16, 16), num_outputs=1, dense=True)).structure.split
    assert [place.path for place in found.places] == ["3"]
    assert found.left_out == dict.fromkeys("012", "nothing of it to change")


RECURRENT = """
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))

    def forward(self, images):
        found = self.first(images)
        for _ in range(5):
            found = found + self.block(found)
        return self.last(found)
"""


def dense_of(tmp_path, source, maker, **settings):
    (tmp_path / "model.py").write_text(source)
    given = TrainedModel.Settings.model_validate({"model": f"{tmp_path / 'model.py'}:{maker}", **settings})
    return TrainedModel(given, Sample(shape=(1, 12, 12), num_outputs=1, dense=True))


def test_a_model_of_which_next_to_nothing_is_left_is_refused_with_what_was_dropped(tmp_path):
    told = (
        r"Recurrent: found 1 position with 0\.6 % of the model's cost \(block.*it is called 5 times; "
        r"first: it computes no less\), expected 2 % at least"
    )
    with pytest.raises(SpaceError, match=told):
        _ = dense_of(tmp_path, RECURRENT, "Recurrent", library=[{"kind": "linear"}]).structure


FILM = """
import torch
from torch import nn
from nas_core.testing.example_model import Residual

class Film(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.frame = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), *(Residual(8) for _ in range(4)))
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, outputs))

    def forward(self, x):
        frames = self.frame(x.reshape(-1, 1, *x.shape[2:])).mean((2, 3))
        return self.head(frames.reshape(len(x), -1, 8).mean(1))

def build(in_channels, num_outputs):
    torch.manual_seed(0)
    return Film(num_outputs)
"""


def test_blocks_that_see_many_rows_of_an_example_cost_as_many(tmp_path):
    """Frames of a film, put on the batch's axis: a block's costs are those of all of them, as the whole network's."""
    (tmp_path / "film.py").write_text(FILM)
    settings = TrainedModel.Settings(model=f"{tmp_path}/film.py:build")
    family = TrainedModel(settings, Sample(shape=(5, 16, 16), num_outputs=3))
    assert {place.rows for place in family.structure.split.places} == {1, 5}
    for genotype in (Genotype((choice,) * family.space.num_positions) for choice in (0, 1)):
        parts = count_parts(family.parts(genotype))
        whole = count_module(partial(family.module, genotype), family.sample.shape)
        for resource in ("flops", "params", "activation_bytes"):
            assert parts[resource] == whole[resource]


def test_too_few_positions_among_those_asked_for_name_what_was_asked(tmp_path):
    family = dense_of(tmp_path, DENOISER, "build", only=["blocks.0.0"])
    with pytest.raises(SpaceError) as error:
        _ = family.structure
    assert str(error.value) == (
        "space.only blocks.0.0: found 1 position, expected 2 at least. Name more modules, or those around them: --only."
    )
    with pytest.raises(SpaceError, match=r"space.only blocks.\* beside space.keep .*: found"):
        _ = dense_of(tmp_path, DENOISER, "build", only=["blocks.*"], keep=["blocks.[1-9]*", "blocks.0.2"]).structure
    paths = [place.path for place in dense_of(tmp_path, DENOISER, "build", only=["blocks.*"]).structure.split.places]
    assert all(path.startswith("blocks.") for path in paths)


def test_a_model_of_a_function_has_finite_weights(tmp_path):
    (tmp_path / "model.py").write_text(DENOISER + "    model.last.weight.data[0] = float('nan')\n    return model\n")
    text = (tmp_path / "model.py").read_text().replace("return Denoiser()", "model = Denoiser()", 1)
    (tmp_path / "model.py").write_text(
        "import torch\n" + text.replace("def build():", "def build():\n    torch.manual_seed(0)")
    )
    family = TrainedModel(
        TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:build"),
        Sample(shape=(1, 12, 12), num_outputs=1, dense=True),
    )
    with pytest.raises(DataError, match=r"weights that are NaN or infinite .last.weight"):
        family.teacher  # noqa: B018


def test_a_model_whose_output_is_added_to_its_input_can_be_made_narrower(tmp_path):
    (tmp_path / "model.py").write_text(DENOISER)
    sample = Sample(shape=(1, 12, 12), num_outputs=1, dense=True)
    family = TrainedModel(TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:build"), sample)
    assert "" not in family.teacher_places
    images = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    model = family.reference.fresh()
    made = narrowed(model, family.teacher_places, 0.5, images)
    assert made.network(images).shape == images.shape
    assert {path for path in made.changes if path.startswith("blocks")}


OWN = """
from torch import nn
from nas_core import ALTERNATIVES, Alternative

class Mine(nn.Conv2d):
    pass

@ALTERNATIVES.add
class OfMine(Alternative):
    "A layer of a class that no other file knows."
    name = "of-mine"
    def change(self, draft):
        draft.put("", Mine(draft.shapes[0][0], draft.shapes[1][0], 1))
        return ""

class Smaller(Alternative):
    def change(self, draft):
        kept = range(self.begin, self.begin + 8)
        for width in draft.widths:
            draft.keep(width, kept)
        return "" if draft.changes else "nothing to cut"

@ALTERNATIVES.add
class First(Smaller):
    "The first eight channels."
    name, begin = "first-eight", 0

@ALTERNATIVES.add
class Second(Smaller):
    "The next eight channels."
    name, begin = "next-eight", 8
"""


def test_what_a_plug_in_brings_stands_beside_others_or_is_said_with_the_reason(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    plugin = import_plugin(str(tmp_path / "own.py"))
    library = [{"kind": kind} for kind in ("of-mine", "narrower", "first-eight", "next-eight", "next-eight", "linear")]
    library.append({"kind": "shallower"})  # one of those that are always tried, and stands nowhere
    try:
        settings = TrainedModel.Settings(model="nas_core.testing.example_model:small_network", library=library)
        family = TrainedModel(settings, Sample(shape=(3, 8, 8), num_outputs=5))
        row = family.structure.candidates[1]
        assert [each.spec.kind for each in row] == ["narrower", "first-eight", "next-eight", "linear"]
        (note,) = family.notes()
    finally:
        ALTERNATIVES.forget(plugin.origin)
    assert note.startswith("of-mine stands at no position: TypeError: Mine: only Conv2d, Linear")


TIED = """
from torch import nn
from nas_core.testing.example_model import Residual

def build():
    model = nn.Sequential(*(Residual(8) for _ in range(4)))
    model[3].body[0].weight = model[2].body[0].weight
    return model
"""


def test_weights_that_are_shared_no_longer_are_said(tmp_path):
    (tmp_path / "model.py").write_text(TIED)
    family = TrainedModel(
        TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:build"),
        Sample(shape=(8, 6, 6), num_outputs=8, dense=True),
    )
    (note,) = family.notes()
    assert note.endswith("each layer's own (3.body.0.weight): 576 parameters more than as it was given")


SIAMESE = """
import torch
from torch import nn
from nas_core.testing.example_model import Residual

class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(*(Residual(4) for _ in range(4)))
        self.head = nn.Linear(8, 2)

    def forward(self, pairs):
        both = [self.encoder(each).mean((2, 3)) for each in pairs.chunk(2, 1)]
        return self.head(torch.cat(both, 1))
"""


@pytest.mark.parametrize("last", ["nn.Linear(8, 2)", "nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))"])
def test_a_model_that_calls_its_blocks_twice_is_told_how_they_are_called_once(tmp_path, last):
    (tmp_path / "model.py").write_text(SIAMESE.replace("nn.Linear(8, 2)", last))
    settings = TrainedModel.Settings(model=f"{tmp_path / 'model.py'}:Siamese", library=[{"kind": "linear"}])
    family = TrainedModel(settings, Sample(shape=(8, 6, 6), num_outputs=2))
    with pytest.raises(SpaceError) as error:
        _ = family.structure
    said = str(error.value)
    assert said.count("it is called 2 times") == said.count("encoder: ") == 1
    assert "(torch.cat)" in said


def test_networks_of_other_outputs_are_counted_apart(tmp_path):
    """Equal parts are counted once per process: those of another head are others."""
    known = []
    for outputs in (10, 100):
        settings = TrainedModel.Settings(model="timm:test_resnet")
        family = TrainedModel(settings, Sample(shape=(3, 32, 32), num_outputs=outputs))
        base = Genotype((0,) * family.space.num_positions)
        whole = count_module(partial(family.module, base), family.sample.shape)
        assert count_parts(family.parts(base)).params == whole.params
        known.append(whole.params)
    assert known[0] < known[1]
