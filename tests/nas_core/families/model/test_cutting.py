"""A model whose forward pass is written out is cut where one tensor is all that passes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from nas_core.base.errors import SpaceError
from nas_core.families.model import rebuild
from nas_core.families.model.cutting import ends_of
from nas_core.families.trained_model import TrainedModel
from nas_core.workloads.workload import Sample

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SAMPLE = Sample(shape=(3, 16, 16), num_outputs=5)


class WrittenOut(nn.Module):
    """Four residual blocks that are no modules; one ReLU serves them all."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.firsts = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.seconds = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.scale = nn.Parameter(torch.full((1, 8, 1, 1), 0.5))
        self.act = nn.ReLU()
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x: torch.Tensor, twice: bool = False) -> torch.Tensor:
        x = self.act(self.stem(x))
        for first, norm, second in zip(self.firsts, self.norms, self.seconds, strict=True):
            branch = second(self.act(norm(first(x))))
            x = relu(x + (2 * branch if twice else branch))
        x = x * self.scale
        return self.head(x.mean((2, 3)).reshape(x.shape[0], -1))


class Tied(nn.Module):
    """One convolution is called twice, another in between; the first's input is read at the end once more."""

    def __init__(self) -> None:
        super().__init__()
        self.ends, self.middle, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.ends(self.middle(self.ends(x))))


def written_out(num_outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return WrittenOut(num_outputs)


class Branching(WrittenOut):
    def forward(self, x: torch.Tensor, twice: bool = False) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class ByModules(WrittenOut):
    """The same blocks, as modules."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return relu(x + self.second(relu(self.first(x))))

    def __init__(self, num_outputs: int) -> None:
        super().__init__(num_outputs)
        self.blocks = nn.Sequential(*(ByModules.Block() for _ in range(4)))

    def forward(self, x: torch.Tensor, twice: bool = False) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def by_modules(num_outputs: int) -> nn.Module:
    return ByModules(num_outputs)


def branching(num_outputs: int) -> nn.Module:
    return Branching(num_outputs)


def by_stages(num_outputs: int) -> nn.Module:
    """A stage of two blocks and one of eight, which holds four fifths of the model."""
    blocks = [[ByModules.Block() for _ in range(count)] for count in (2, 8)]
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16 * 16, num_outputs))
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(nn.Sequential(*stage) for stage in blocks), head)


def family_of(maker: str, **settings) -> TrainedModel:
    settings = {
        "model": f"{__name__}:{maker}",
        "library": [{"kind": "narrower", "ratio": 0.5}, {"kind": "skip"}],
        **settings,
    }
    return TrainedModel(TrainedModel.Settings.model_validate(settings), SAMPLE)


class Norm(nn.BatchNorm2d):
    """A user's own, with an activation behind it; torch.fx would write down what it does in evaluation mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return relu(super().forward(x))


class Noise(nn.Module):
    """Without weights or modules of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if self.training else x


class WithOwnNorms(WrittenOut):
    def __init__(self, num_outputs: int) -> None:
        super().__init__(num_outputs)
        self.norms = nn.ModuleList(nn.Sequential(Norm(8), Noise()) for _ in range(4))


def test_what_does_another_thing_while_it_learns_stays_a_module_in_a_part():
    model = WithOwnNorms(5).eval()
    parts = rebuild.cut(model, ends_of(model, IMAGES)).eval()
    norms = [layer for layer in parts.modules() if isinstance(layer, Norm)]
    before = [norm.running_mean.clone() for norm in norms]
    assert len(norms) == 4
    assert torch.equal(parts(IMAGES), model(IMAGES))
    once, again = (parts.train()(IMAGES) for _ in range(2))
    assert not torch.equal(once, again)  # the noise
    assert not any(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


def test_parts_are_blocks_and_compute_what_the_model_does():
    model = written_out(5).eval()
    parts = rebuild.cut(model, ends_of(model, IMAGES))
    assert list(parts._modules) == ["stem", "firsts_0", "firsts_1", "firsts_2", "firsts_3", "part5", "head"]
    assert torch.equal(parts(IMAGES), model(IMAGES))
    assert torch.equal(parts(IMAGES[:1, :, :8, :12]), model(IMAGES[:1, :, :8, :12]))  # of any size
    assert {id(each) for each in parts.parameters()} == {id(each) for each in model.parameters()}


def test_what_is_called_twice_stays_in_one_part():
    model = Tied().eval()
    parts = rebuild.cut(model, ends_of(model, IMAGES))
    assert list(parts._modules) == ["ends", "last"]
    assert torch.equal(parts(IMAGES), model(IMAGES))


def test_a_model_is_cut_where_its_modules_are_single_layers_only():
    family = family_of("written_out")
    assert [place.path for place in family.structure.split.places] == [f"firsts_{index}" for index in range(4)]
    assert not family_of("by_modules").structure.own.cut
    assert not family_of("written_out", cut=False).structure.own.cut


def test_a_network_of_parts_is_narrower_inside_and_is_rebuilt(tmp_path):
    family = family_of("written_out")
    genotype = family.space.parse("1-2-0-1")
    assert family.space.num_networks == 3**4
    network = family.module(genotype)
    assert network(IMAGES).shape == (2, 5)
    assert network.get_submodule("firsts_0.firsts.0").out_channels == 4
    origin = family.origin(genotype)
    again = rebuild.changed(rebuild.made(origin["model"]), origin["changes"])
    rebuild.fill(again, network.state_dict())
    assert torch.equal(again.eval()(IMAGES), network.eval()(IMAGES))


def test_a_teacher_has_its_own_weights_in_its_parts(tmp_path):
    from safetensors.torch import save_file

    model = WrittenOut(5).eval()  # other weights than its maker's
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    family = family_of("written_out", checkpoint=str(tmp_path / "mine.safetensors"))
    assert torch.equal(family.teacher(IMAGES), model(IMAGES))


def test_a_forward_pass_that_branches_cannot_be_cut():
    with pytest.raises(SpaceError, match=r"torch\.fx can follow"):
        _ = family_of("branching", cut=True).structure
    assert not family_of("branching").structure.own.cut  # its modules are what there is


def test_fewer_positions_are_rows_of_blocks():
    library = [{"kind": "shallower", "ratio": 0.5}, {"kind": "skip"}]
    for maker, blocks in (("written_out", "firsts_"), ("by_modules", "blocks.")):
        family = family_of(maker, wanted=3, library=library)  # the third is the stem, which nothing stands for
        assert [place.path for place in family.structure.split.places] == [f"{blocks}0", f"{blocks}2"]
        whole, halved, none = (family.module(family.space.parse(text)) for text in ("0-0", "0-1", "0-2"))
        rows = [network.get_submodule(f"{blocks}2") for network in (whole, halved, none)]
        assert [sum(isinstance(each, nn.Conv2d) for each in row.modules()) for row in rows] == [4, 2, 0]
        again = rebuild.fill(family.own.fresh(), whole.state_dict())
        assert torch.equal(again(IMAGES), whole.eval()(IMAGES))
        origin = family.origin(family.space.parse("1-2"))
        again = rebuild.changed(rebuild.made(origin["model"]), origin["changes"])
        rebuild.fill(again, family.module(family.space.parse("1-2")).state_dict())


@pytest.mark.parametrize(("wanted", "most"), [(5, 0.5), (6, 0.3), (8, 0.25)])
def test_a_long_stage_is_several_rows_where_the_wanted_number_allows_it(wanted, most):
    places = family_of("by_stages", wanted=wanted, library=[{"kind": "skip"}]).structure.split.places
    assert max(place.share for place in places) <= most
    assert len(places) == wanted - 2  # nothing stands for the stem and the head
