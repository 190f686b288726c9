"""Models that do what few do are split, counted and rated as others are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.costs.counting import count_module, count_part
from nas_core.families.model import rebuild
from nas_core.families.model.alternatives import Narrower
from nas_core.families.model.assembled import Fixed
from nas_core.families.model.assembling import drafted, flops_of, observed, with_fresh_weights, without_weights
from nas_core.families.model.draft import Call, Original
from nas_core.families.model.tracing import trace
from nas_core.families.trained_model import Candidate, TrainedModel, alternative_of
from nas_core.scoring.rated_split import PreparedBatches
from nas_core.space.genotypes import Genotype
from nas_core.training.loop import outputs_of
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample
from tests.nas_core.families import unusual

SAMPLE = Sample(shape=(3, 16, 16), num_outputs=10)


def _family(name: str) -> TrainedModel:
    return TrainedModel(TrainedModel.Settings(model=f"{Path(unusual.__file__)}:{name}"), SAMPLE)


def _last(family: TrainedModel, choice: int) -> Genotype:
    return Genotype((0,) * (family.space.num_positions - 1) + (choice,))


def test_what_works_in_place_behind_a_block_leaves_what_is_kept_of_it() -> None:
    """Networks that share a beginning are what each of them is by itself."""
    family = _family("in_place")
    network = family.switched()
    fixed = Fixed(calibration=list(torch.rand(2, 8, 3, 16, 16)), rated=[torch.rand(8, 3, 16, 16)])
    genotypes = [_last(family, choice) for choice in range(3)]
    alone = []
    for genotype in genotypes:
        network.forget()
        alone.append(network.outputs(genotype, fixed).clone())
    network.forget()
    for genotype, expected in zip(genotypes, alone, strict=True):
        assert torch.equal(network.outputs(genotype, fixed), expected)
    assert not torch.equal(alone[0], alone[1])


def test_weights_that_a_mask_leaves_are_what_is_changed() -> None:
    family = _family("masked")
    assert not any("mask" in name or name.endswith("_orig") for name in family.teacher.state_dict())
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(family.teacher(images), unusual.masked()(images))
    assert {each.spec.kind for each in family.structure.candidates[1]} >= {"narrower", "skip"}


@pytest.mark.parametrize("name", ["with_pairs", "with_one_table"])
def test_tables_beside_the_tokens_are_no_examples(name: str) -> None:
    """Two examples are looked at, and two tensors in a table: only the examples grow in number."""
    family = _family(name)
    base = [count_part(part).flops for part in family.parts(_last(family, 0))[1:]]
    assert [each for each in base if each == 2 * 16 * unusual.CHANNELS * 32], base  # 16 tokens through both maps
    assert len(base) == family.space.num_positions


def test_the_fast_path_of_torchs_transformer_is_counted() -> None:
    kinds = [{each.spec.kind for each in row} for row in _family("encoder").structure.candidates]
    assert sum("skip" in row for row in kinds) >= 2, kinds


def test_tables_that_no_file_holds_stay_in_a_structure() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.register_buffer("table", torch.arange(4.0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.table

    block, inputs = Scaled(), torch.randn(2, 4)
    again = with_fresh_weights(without_weights(block))
    again.load_state_dict(block.state_dict())
    assert torch.equal(again(inputs), block(inputs))
    with torch.device("meta"):
        assert {each.device.type for each in with_fresh_weights(without_weights(block)).buffers()} == {"meta"}


def test_attention_is_counted_where_alternatives_are_held_against_a_block() -> None:
    class Attending(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + nn.functional.scaled_dot_product_attention(x, x, x)

    inputs = torch.randn(2, 1, 16, 8)
    counted = flops_of(Attending(), Call(inputs=inputs))
    assert counted == count_module(Attending, (1, 16, 8)).flops == 2 * 16 * 16 * 8


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_are_counted_alike_wherever_they_are_counted(kind: type[nn.Module], gates: int) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = kind(8, 16, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)[0]
            return out

    inputs = torch.randn(3, 5, 8)
    wanted = 5 * gates * 16 * 2 * ((8 + 16) + (32 + 16))
    assert flops_of(Recurrent(), Call(inputs=inputs)) == count_module(Recurrent, (5, 8)).flops == wanted
    assert trace(Recurrent(), inputs).flops == wanted


class Own(Narrower):
    """As one that a plug-in brings."""


def test_a_table_that_was_cut_is_saved_and_loaded() -> None:
    family = _family("with_gains")
    (choice,) = (index for index, each in enumerate(family.structure.candidates[-1], 1) if _keeps_half(each))
    genotype, place = _last(family, choice), family.structure.split.places[-1]
    original = Original(block=family.teacher.get_submodule(place.path), call=family.structure.calls[place.path])
    made = drafted(original, family.structure.candidates[-1][choice - 1].alternative)
    brought = drafted(original, Own(Own.Settings(ratio=0.5)))  # is built again, too
    assert brought.changes == made.changes
    network = family.module(genotype).eval()
    network.load_state_dict(
        family.teacher.state_dict() | {f"{place.path}.{name}": value for name, value in made.block.state_dict().items()}
    )
    loaded = rebuild.changed(rebuild.made(family.origin(genotype)["model"]), family.changes(genotype))
    rebuild.fill(loaded, network.state_dict())
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
        assert not torch.equal(loaded(images), family.teacher(images))


def _keeps_half(candidate: Candidate) -> bool:
    return candidate.spec.as_dict() == {"kind": "narrower", "ratio": 0.5, "multiple": 8}


def test_a_model_that_is_traced_again_has_the_same_names() -> None:
    """The network that is trained begins with the model's weights, and its files load: by their names."""
    family = _family("with_constants")
    base = _last(family, 0)
    network = family.module(base)
    network.load_state_dict(family.teacher.state_dict())
    again = rebuild.made(family.origin(base)["model"])
    assert set(again.state_dict()) == set(network.state_dict())


@pytest.mark.parametrize(("padding", "mode"), [("same", "zeros"), (2, "reflect"), (2, "circular")])
def test_layers_of_signals_are_fitted(padding: Any, mode: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv1d(4, 16, 5, padding=padding, padding_mode=mode, dilation=1), nn.ReLU()]
    block = nn.Sequential(*layers, nn.Conv1d(16, 4, 5, padding=padding, padding_mode=mode, stride=1)).eval()
    block.requires_grad_(False)
    seen, new = torch.randn(2, 200, 4, 20)
    original = Original(block=block, call=Call(inputs=new), samples=Call(inputs=seen))
    fitted = drafted(original, alternative_of({"kind": "narrower", "ratio": 0.5})).block
    plain = drafted(replace(original, samples=None), alternative_of({"kind": "narrower", "ratio": 0.5})).block
    with torch.no_grad():
        errors = [float((each(new) - block(new)).pow(2).mean()) for each in (fitted, plain)]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize(("padding", "mode"), [("same", "zeros"), ("same", "reflect"), (1, "circular")])
def test_layers_are_fitted_with_whatever_they_pad(padding: Any, mode: str) -> None:
    torch.manual_seed(0)
    block = unusual.Padded(padding, mode).eval().requires_grad_(False)
    seen, new = torch.randn(2, 200, unusual.CHANNELS, 8, 8)
    call = Call(inputs=new)
    for kind in ("narrower", "low-rank"):
        plain, fitted = (
            drafted(
                Original(block=block, call=call, samples=samples), alternative_of({"kind": kind, "ratio": 0.5})
            ).block
            for samples in (None, Call(inputs=seen))
        )
        modes = {
            each.padding_mode for each in fitted.modules() if isinstance(each, nn.Conv2d) and each.kernel_size[0] > 1
        }
        assert modes == {mode}
        with torch.no_grad():
            errors = [float((each(new) - block(new)).pow(2).mean()) for each in (fitted, plain)]
        assert errors[0] < errors[1]


def test_what_has_several_rows_for_each_example_is_repeated_with_it() -> None:
    """Such as torch's mask of attention, with a row for each head of each example."""
    two, one = torch.randn(2, 5, 8), torch.randn(1, 5, 8)
    call = Call(inputs=two, context=(torch.arange(6.0).reshape(6, 1), torch.zeros(6, 2)))
    known = call.beside(Call(inputs=one, context=(torch.arange(3.0).reshape(3, 1), torch.zeros(6, 2))))
    mask, table = known.on(torch.randn(4, 5, 8)).context
    assert mask.flatten().tolist() == [0.0, 1.0, 2.0] * 4
    assert table.shape == (6, 2)


def test_a_hook_of_the_models_own_is_called_once() -> None:
    block = nn.Linear(4, 4)
    block.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))
    model, inputs = nn.Sequential(block, nn.ReLU()), torch.randn(3, 4)
    (call, output) = observed(model, ["0"], inputs)["0"]
    with torch.no_grad():
        assert torch.equal(call.run(block), output)


def test_a_model_that_works_in_place_on_its_inputs_leaves_them_to_others() -> None:
    network = unusual.own()
    images = torch.rand(6, 1, 8, 8)
    kept = images.clone()
    once, again = (outputs_of(network, images, Normalisation(), device="cpu") for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(images, kept)
    for most_bytes in (0.0, 1e9):
        batches = PreparedBatches(images, 3, prepare=Normalisation(), device=torch.device("cpu"), most_bytes=most_bytes)
        with torch.no_grad():
            passes = [torch.cat([network(batch) for batch in batches]) for _ in range(2)]
        assert torch.equal(*passes)


def test_parameters_that_cannot_learn_are_left_as_they_are() -> None:
    family = TrainedModel(
        TrainedModel.Settings(model=f"{unusual.__file__}:own"), Sample(shape=(1, 16, 16), num_outputs=10)
    )
    network = family.module(_last(family, 1))
    learn = {name for name, each in network.named_parameters() if each.requires_grad}
    assert {name for name, _ in network.named_parameters()} - learn == {"order"}


class Indexed(nn.Module):
    """Puts channels into another order, which it holds as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.order = nn.Parameter(torch.tensor([3, 2, 1, 0]), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[..., self.order]


def test_indices_among_the_parameters_are_some_that_there_are() -> None:
    for _ in range(8):  # memory that was used before holds anything
        used = torch.full((4,), 123_456_789_012)
        del used
        block = with_fresh_weights(without_weights(Indexed()))
        assert block(torch.randn(2, 4)).shape == (2, 4)
