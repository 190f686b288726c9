"""Alternatives learn from a trained model's blocks; networks of them are rated as if each were built by itself."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.base.errors import ConfigError, DataError, SpaceError, StoreError
from nas_core.families.model.reference import weights_hash
from nas_core.records.store import Store
from nas_core.scoring import SCORERS
from nas_core.scoring.distil import DistilScorer
from nas_core.scoring.distil_weights import DistilledBlocks, Distiller, Students
from nas_core.scoring.scorer import Rows
from nas_core.space.genotypes import Genotype
from nas_core.study.brought import family_of, scorer_of
from nas_core.study.config import StudyConfig, parse_config
from nas_core.training.checkpoint import unpack
from nas_core.training.loop import measure, train
from nas_core.training.settings import Recipe
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.settings import ImageSettings
from nas_core.workloads.targets import calibrated_loss
from nas_core.workloads.workload import metric_of
from tests.real_images import write_pairs

MODEL = "nas_core.testing.example_model:small_network"


def _config(**scorer: Any) -> StudyConfig:
    recipe = {"epochs": 2, "batch_size": 32, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.0, "clip_norm": None}
    return parse_config(
        {
            "space": {"kind": "model", "model": MODEL, "library": LIBRARY},
            "data": {"kind": "digits", "train_examples": 320, "validation_examples": 100},
            "scorer": {"kind": "distil", "samples": 64, "calibration_examples": 64, "recipe": recipe}
            | {"recovery_steps": 0, **scorer},
        },
        "test",
    )


SEGMENTER = """
import torch
from torch import nn
from nas_core.testing.example_model import small_network

def segmenter(in_channels: int, num_outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*small_network(in_channels, 16)[:-1], nn.Conv2d(16, num_outputs, 1))
"""
TRANSFORMER = """
import torch
from torch import nn
from nas_core.families import timm_compat
from timm.models.vision_transformer import VisionTransformer

def transformer(in_channels: int, num_outputs: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return VisionTransformer(in_chans=in_channels, num_classes=num_outputs, **sizes)
"""
LIBRARY = [{"kind": "narrower", "ratio": 0.5}, {"kind": "linear"}, {"kind": "skip"}]


def _scorer(config: StudyConfig, folder: Path) -> DistilScorer:
    scorer = scorer_of(config, family_of(config), Store(folder), device="cpu")
    assert isinstance(scorer, DistilScorer)
    return scorer


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> DistilScorer:
    scorer = _scorer(_config(), tmp_path_factory.mktemp("distilled"))
    scorer.prepare(lambda *_: None)
    return scorer


def _built(scorer: DistilScorer, genotype: Genotype) -> nn.Module:
    """The network by itself, from what the store holds."""
    blocks = DistilledBlocks(scorer)
    network = copy.deepcopy(blocks.family.module(genotype))
    network.load_state_dict(scorer.start(genotype))
    return network.eval()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> DistilScorer:
    scorer = _scorer(_config(train=False), tmp_path_factory.mktemp("fitted"))
    scorer.prepare(lambda *_: None)
    return scorer


@pytest.fixture(scope="module")
def of_tokens(tmp_path_factory: pytest.TempPathFactory) -> DistilScorer:
    folder = tmp_path_factory.mktemp("tokens")
    scorer = _scorer(_of_tokens(folder), folder / "store")
    scorer.prepare(lambda *_: None)
    return scorer


def _of_tokens(folder: Path, **scorer: Any) -> StudyConfig:
    (folder / "transformer.py").write_text(TRANSFORMER)
    model = {"kind": "model", "model": f"{folder}/transformer.py:transformer", "library": LIBRARY}
    return parse_config(_config(**scorer).model_dump() | {"space": model}, "test")


@pytest.mark.parametrize("made", ["distilled", "fitted", "of_tokens"])
def test_networks_are_rated_as_if_each_were_built_by_itself(made: str, request: pytest.FixtureRequest) -> None:
    """Outputs that are kept of a common beginning change nothing: the loss is that of the whole network."""
    scorer = request.getfixturevalue(made)
    space, rng = scorer.family.space, np.random.default_rng(0)
    genotypes = sorted({space.sample(rng) for _ in range(12)} | {Genotype((0,) * space.num_positions)})
    rows = {row.genotype: row.metric for row in scorer.evaluate(genotypes)}
    data = scorer.blocks.data
    inputs, targets = data.validation
    for genotype in genotypes:
        with torch.no_grad():
            outputs = _built(scorer, genotype)(data.prepare(inputs))
        loss = calibrated_loss(outputs, partial(scorer.workload.loss, targets=targets))
        assert loss == pytest.approx(rows[str(genotype)], rel=1e-4)


@pytest.mark.parametrize("made", ["fitted", "of_tokens"])
def test_blocks_are_fitted_again_in_each_network(
    made: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their outputs are nearer to the model's, on examples that they were not fitted to."""
    fitted = request.getfixturevalue(made)
    genotype = Genotype((1,) * fitted.family.space.num_positions)
    inputs = fitted.blocks.data.prepare(fitted.blocks.data.validation[0])

    def distance() -> float:
        with torch.no_grad():
            return float((_built(fitted, genotype)(inputs) - fitted.blocks.teacher(inputs)).pow(2).mean())

    again = distance()
    monkeypatch.setattr(DistilScorer, "reconstructs", False)
    assert again < 0.9 * distance()


def test_distilled_blocks_are_fitted_again_only_of_tokens_and_without_recovery(
    distilled: DistilScorer, of_tokens: DistilScorer, tmp_path: Path
) -> None:
    assert not distilled.reconstructs
    assert of_tokens.reconstructs
    whole = {"kind": "model", "model": of_tokens.family.settings.model}  # and with other patches
    assert _scorer(parse_config(_config().model_dump() | {"space": whole}, "test"), tmp_path).reconstructs
    assert not _scorer(_of_tokens(tmp_path, recovery_steps=2), tmp_path).reconstructs
    assert not _scorer(_of_tokens(tmp_path, samples=0), tmp_path).reconstructs


def test_batches_that_do_not_fit_into_the_memory_stated_are_made_each_time(distilled: DistilScorer) -> None:
    genotype = Genotype((1,) * distilled.family.space.num_positions)
    scorer = _scorer(_config(memory_gb=1e-9, eval_batch_size=40), Path(distilled.store.root))
    assert _rated(scorer, genotype) == pytest.approx(_rated(distilled, genotype), rel=1e-5)
    assert scorer.blocks.fixed.rated.kept is None


@pytest.mark.parametrize("rated_by", ["loss", "metric"])
@pytest.mark.parametrize("recovery_steps", [0, 2])
def test_of_large_maps_some_pixels_are_rated_by_loss_all_by_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recovery_steps: int, rated_by: str
) -> None:
    """Every second row and column of 28 x 28, with the loss of these alone; a metric is of counts of each image."""
    (tmp_path / "segmenter.py").write_text(SEGMENTER)
    data = {"kind": "segmentation", "path": str(write_pairs(tmp_path / "pairs", 100)), "validation_examples": 20}
    config = _config(recovery_steps=recovery_steps, train=False, rated_by=rated_by, eval_batch_size=8)
    model = {"kind": "model", "model": f"{tmp_path}/segmenter.py:segmenter", "library": LIBRARY}
    config = parse_config(config.model_dump() | {"space": model, "data": data}, "test")
    monkeypatch.setattr("nas_core.scoring.rated_split.MOST_OF_MAPS", 20 * 2 * 14 * 14)
    scorer = _scorer(config, tmp_path)
    scorer.prepare(lambda *_: None)
    genotype, blocks = Genotype((1,) * scorer.family.space.num_positions), scorer.blocks
    network = blocks.recovered(genotype, recovery_steps) if recovery_steps else _built(scorer, genotype)
    inputs, targets = blocks.data.validation
    if rated_by == "metric":
        expected = measure(network, metric_of(scorer.workload), (inputs, targets), blocks.data.prepare)
    else:
        with torch.no_grad():
            outputs = network(blocks.data.prepare(inputs))[..., ::2, ::2]
        expected = calibrated_loss(outputs, partial(scorer.workload.loss, targets=targets[..., ::2, ::2]))
    assert _rated(scorer, genotype) == pytest.approx(expected, rel=1e-4)


def test_the_model_itself_is_never_changed(tmp_path: Path) -> None:
    scorer = _scorer(_config(), tmp_path)
    before = weights_hash(scorer.blocks.family.teacher)
    scorer.prepare(lambda *_: None)
    space = scorer.family.space
    scorer.evaluate([Genotype((0,) * space.num_positions), Genotype((1,) * space.num_positions)])
    assert weights_hash(scorer.blocks.family.teacher) == before


def test_fitting_and_training_bring_alternatives_nearer_to_the_blocks(tmp_path: Path) -> None:
    """What they lose, one at a time: most by cutting alone."""
    lost = {}
    for name, given in {
        "cut": {"train": False, "samples": 0},
        "fitted": {"train": False},
        "trained": {"samples": 0},
    }.items():
        scorer = _scorer(_config(rated_by="divergence", **given), tmp_path)
        scorer.prepare(lambda *_: None)
        base = Genotype((0,) * scorer.family.space.num_positions)
        swaps = [base.swap(position, 1) for position in range(len(base.choices))]
        lost[name] = np.mean([_rated(scorer, swap) for swap in swaps])
    assert max(lost["fitted"], lost["trained"]) < lost["cut"]


@pytest.mark.parametrize(("samples", "is_trained"), [(64, False), (0, True)])
def test_a_linear_map_is_trained_only_where_samples_did_not_say_which_is_best(
    samples: int, is_trained: bool, tmp_path: Path
) -> None:
    """Two and no epochs of training differ in the narrower blocks each time."""
    made = []
    for name, trains in (("trained", True), ("fitted", False)):
        scorer = _scorer(_config(samples=samples, train=trains), tmp_path / name)
        scorer.prepare(lambda *_: None)
        made.append(unpack(scorer.store.read_bytes(scorer.weights_path(1)))[0])
    names = [candidate.alternative.name for candidate in scorer.blocks.family.structure.candidates[1]]
    differ = {names[int(key.split(".")[0])] for key in made[0] if not torch.equal(made[0][key], made[1][key])}
    assert differ == ({"narrower", "linear"} if is_trained else {"narrower"})


def test_how_networks_are_rated_is_no_part_of_what_the_alternatives_are(distilled: DistilScorer) -> None:
    other = _scorer(_config(rated_by="metric"), Path(distilled.store.root))
    assert other.scorer_id != distilled.scorer_id
    assert other.prepared


def test_pieces_give_what_one_preparation_gives(distilled: DistilScorer, tmp_path: Path) -> None:
    """Workers make positions apart; each alternative learns by itself."""
    scorer = _scorer(_config(), tmp_path)
    for piece in scorer.pieces:
        scorer.prepare_pieces([piece], lambda *_: None)
    assert scorer.prepared
    genotype = Genotype((1,) * scorer.family.space.num_positions)
    assert _rated(scorer, genotype) == pytest.approx(_rated(distilled, genotype), rel=1e-4)


def test_alternatives_whose_file_is_damaged_are_made_again(fitted: DistilScorer, tmp_path: Path) -> None:
    scorer = _scorer(_config(train=False), tmp_path)
    scorer.prepare(lambda *_: None)
    path = scorer.weights_path(1)
    made = scorer.store.read_bytes(path)
    scorer.store.write_bytes(path, made[:-64] + bytes(64))
    genotype = Genotype((1,) * scorer.family.space.num_positions)
    for found in ("a damaged file", "no file"):  # by one worker, and by another after it
        with pytest.raises(StoreError, match=f"{found}.*The same command makes them again"):
            scorer.blocks.assembled  # noqa: B018
    assert scorer.pieces == ["1"]
    scorer.prepare(lambda *_: None)
    assert scorer.store.read_bytes(path) == made
    assert _rated(scorer, genotype) == _rated(fitted, genotype)
    assert scorer.store.quarantined()


def _rated(scorer: DistilScorer, genotype: Genotype) -> float:
    (row,) = scorer.evaluate([genotype])
    assert row.metric is not None
    return row.metric


def test_an_interrupted_preparation_goes_on(distilled: DistilScorer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nas_core.scoring.distil_weights.CHECKPOINT_EVERY_S", 0.0)
    scorer = _scorer(_config(), tmp_path)

    def stop(done: int, total: int, note: str) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.prepare(stop)
    steps: list[int] = []
    again = _scorer(_config(), tmp_path)
    again.prepare(lambda done, total, note: steps.append(done))
    assert min(steps) > 5
    genotype = Genotype((1,) * again.family.space.num_positions)
    assert _rated(again, genotype) == pytest.approx(_rated(distilled, genotype), rel=1e-4)


def test_what_trainings_start_from_is_named_by_all_that_it_depends_on(tmp_path: Path) -> None:
    config = _config()
    others = [
        config.model_copy(update={"seed": 1}),
        _config(calibration_examples=32),
        _config(samples=32),
    ]
    known = [_scorer(each, tmp_path).starts_from for each in (config, *others)]
    assert len(set(known)) == len(known)
    assert _scorer(_config(rated_by="divergence"), tmp_path).starts_from == known[0]


def test_weights_fitted_again_in_each_network_are_no_others_start(tmp_path: Path) -> None:
    """Networks of tokens are fitted where they do not recover: what is trained on begins with other weights."""
    known = [_scorer(_of_tokens(tmp_path, recovery_steps=steps), tmp_path) for steps in (0, 200)]
    assert [each.reconstructs for each in known] == [True, False]
    assert known[0].starts_from != known[1].starts_from


@pytest.mark.parametrize(
    ("steps", "final_steps", "alike"), [(200, 0, [False]), (0, 200, [True, False]), (0, 0, [True])]
)
def test_recovery_knows_the_recipe_also_where_alternatives_are_not_trained(steps, final_steps, alike, tmp_path) -> None:
    scorers = [
        _scorer(_config(train=False, recovery_steps=steps, final_steps=final_steps, recipe={"lr": lr}), tmp_path)
        for lr in (1e-3, 5e-2)
    ]
    ids = [[each.scorer_id, *([each.final.scorer_id] if each.final else [])] for each in scorers]
    assert [one == other for one, other in zip(*ids, strict=True)] == alike
    assert scorers[0].weights_id == scorers[1].weights_id


def test_an_alternative_that_learns_no_more_is_done(tmp_path: Path) -> None:
    scorer = _scorer(_config(patience=1), tmp_path)
    scorer.prepare(lambda *_: None)
    assert scorer.prepared


def test_alternatives_learn_in_the_recipes_precision(tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        recipe = {"epochs": 1, "batch_size": 32, "clip_norm": None, "precision": precision}
        scorer = _scorer(_config(recipe=recipe), tmp_path)
        scorer.prepare(lambda *_: None)
        losses.append(_rated(scorer, Genotype((1,) * scorer.family.space.num_positions)))
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_gradients_are_clipped_by_alternative_so_that_groups_change_nothing(tmp_path: Path) -> None:
    made = []
    for memory_gb in (4.0, 1e-6):  # one group of all positions, or each position alone
        recipe = {"epochs": 1, "batch_size": 32, "optimizer": "sgd", "lr": 0.1, "clip_norm": 0.01}
        root = tmp_path / str(memory_gb)
        root.mkdir()
        scorer = _scorer(_config(recipe=recipe, memory_gb=memory_gb), root)
        scorer.prepare(lambda *_: None)
        made.append(unpack(scorer.store.read_bytes(scorer.weights_path(1)))[0])
    together, alone = made
    for name, values in together.items():
        torch.testing.assert_close(values, alone[name])


def test_what_a_recipe_drops_is_dropped_in_recoveries_alone(tmp_path: Path) -> None:
    recipe = {"epochs": 0.2, "batch_size": 32, "dropout": 0.5}
    scorer = _scorer(_config(recipe=recipe, recovery_steps=2), tmp_path)
    scorer.prepare(lambda *_: None)  # no alternative has a linear layer
    assert np.isfinite(_rated(scorer, Genotype((1,) * scorer.family.space.num_positions)))


def test_the_model_itself_is_rated_as_it_is(distilled: DistilScorer) -> None:
    base = Genotype((0,) * distilled.family.space.num_positions)
    assert _rated(_scorer(_config(rated_by="divergence"), Path(distilled.store.root)), base) == 0


def test_a_short_recovery_brings_networks_nearer_to_the_model(distilled: DistilScorer) -> None:
    genotype = Genotype((1,) * distilled.family.space.num_positions)
    lost = []
    for steps in (0, 40):
        scorer = _scorer(_config(rated_by="divergence", recovery_steps=steps), Path(distilled.store.root))
        lost.append(_rated(scorer, genotype))
        assert _rated(scorer, genotype) == lost[-1]
    assert lost[1] < lost[0]


def test_the_final_rating_is_the_same_with_a_longer_recovery(distilled: DistilScorer) -> None:
    genotype, root = Genotype((1,) * distilled.family.space.num_positions), Path(distilled.store.root)
    known: dict[str, Any] = {"rated_by": "divergence"}
    short, long = (_scorer(_config(**known, recovery_steps=steps), root) for steps in (1, 40))
    final = _scorer(_config(**known, recovery_steps=1, final_steps=40), root).final
    assert final is not None
    assert _rated(final, genotype) == _rated(long, genotype) < _rated(short, genotype)
    other = _scorer(_config(**known, recovery_steps=1, final_steps=30), root)
    assert final.scorer_id != short.scorer_id == other.scorer_id
    assert final.prepared
    for given in ({"recovery_steps": 20, "final_steps": 20}, {"final_steps": 0}):
        assert _scorer(_config(**given), root).final is None


def test_networks_that_are_rated_as_assembled_may_have_a_final_rating_too(distilled: DistilScorer) -> None:
    genotype, root = Genotype((1,) * distilled.family.space.num_positions), Path(distilled.store.root)
    scorer = _scorer(_config(rated_by="divergence", final_steps=40), root)
    assert scorer.final is not None
    assert _rated(scorer.final, genotype) < _rated(scorer, genotype)
    assert "rated as they are assembled, the best few once more after a recovery of 40 steps" in scorer.notes()[0]


def test_a_network_that_fails_is_a_row(distilled: DistilScorer) -> None:
    wrong = Genotype((9,) * distilled.family.space.num_positions)
    row, good = distilled.evaluate([wrong, Genotype((0,) * distilled.family.space.num_positions)])
    assert (row.status, good.status) == ("failed", "ok")


BRANCHING = """
import torch
from nas_core.testing.example_model import small_network

class Either(torch.nn.Module):
    def __init__(self, block, other):
        super().__init__()
        self.block, self.other = block, other

    def forward(self, x):
        return self.block(x) if len(x) < 8 else self.other(x)  # as what looks at its inputs' values does

def branching(in_channels: int, num_outputs: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network, other = small_network(in_channels, num_outputs), small_network(in_channels, num_outputs)
    network[1] = Either(network[1], other[1])
    return network
"""


def test_a_position_that_the_model_does_not_call_for_the_data_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "branching.py").write_text(BRANCHING)
    model = {"kind": "model", "model": f"{tmp_path}/branching.py:branching", "library": LIBRARY}
    scorer = _scorer(parse_config(_config().model_dump() | {"space": model}, "test"), tmp_path / "store")
    assert "1.block.body.0" in [position.name for position in scorer.family.space.positions]
    with pytest.raises(SpaceError, match=r"position 1\.block\.body\.0: found a module that .*--keep 1"):
        scorer.prepare(lambda *_: None)


def test_a_family_without_a_model_is_refused(tmp_path: Path) -> None:
    config = parse_config({"space": {"kind": "tiny"}, "scorer": {"kind": "distil"}}, "test")
    scorer = SCORERS["distil"](config.scorer, scorer_of(config, family_of(config), Store(tmp_path)).setting)
    with pytest.raises(ConfigError, match="no trained model"):
        scorer.check()


def test_a_checkpoint_that_is_missing_is_said_before_compute(tmp_path: Path) -> None:
    config = parse_config(
        {
            "space": {"kind": "model", "model": MODEL, "checkpoint": str(tmp_path / "none.pth")},
            "data": {"kind": "digits"},
            "scorer": {"kind": "distil"},
        },
        "test",
    )
    with pytest.raises(DataError, match=r"none\.pth: found no file"):
        _ = family_of(config).space


def test_nothing_is_dropped_while_alternatives_learn():
    """No layer that drops, nor an attention that drops by itself; normalisation learns its statistics."""
    block = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(4), nn.Dropout1d(), nn.AlphaDropout())
    attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    students = Students({0: nn.ModuleList([block, attention])}).train()
    inputs = torch.randn(6, 4, 8)
    for each in students.of(0):
        assert torch.equal(each(inputs), each(inputs))
    assert float(block[1].num_batches_tracked) == 2


@pytest.mark.parametrize("count", [100, 127, 320])
def test_a_network_recovers_by_as_many_steps_as_were_asked_for(count, tmp_path, monkeypatch):
    config = _config()
    config = config.model_copy(update={"data": config.data.model_copy(update={"train_examples": count})})
    scorer = _scorer(config, tmp_path)
    scorer.prepare(lambda *_: None)
    taken = []
    monkeypatch.setattr(
        "nas_core.scoring.distil_weights.train", lambda *given, **named: taken.append(train(*given, **named).steps)
    )
    scorer.blocks.recovered(Genotype((0,) * scorer.family.space.num_positions), 7)
    assert taken == [7]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_training_in_which_nothing_learns_any_more_goes_on_to_its_end(precision):
    """A scaler takes a step without gradients for a mistake."""
    data = Digits(ImageSettings(validation_examples=300))
    splits = data.load()
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)).eval().requires_grad_(False)
    students = Students({0: nn.ModuleList([nn.Linear(8, 10)])})
    distiller = Distiller(teacher, students, {0: "2"}, DistilScorer.Settings(patience=1))
    recipe = Recipe(epochs=12, batch_size=512, lr=1e-9, augment="none", precision=precision)
    result = train(students, recipe, splits, data, seed=0, device="cpu", backward=distiller)
    assert result.steps == 12 * (len(splits.train[1]) // 512)
    assert float(students.waited) >= 1


class Overflowing(nn.Linear):
    """Gives what is no finite number where it learns, but for the first time."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (float("inf") if self.calls > 1 else 1.0)


@pytest.mark.parametrize("bad_step", [0, 2])
def test_one_loss_that_is_no_number_ends_no_learning(bad_step):
    students = Students({0: nn.ModuleList([nn.Linear(2, 2)])})
    teacher = nn.Linear(2, 2).requires_grad_(False)
    distiller = Distiller(teacher, students, {0: ""}, DistilScorer.Settings(patience=3))
    for step in range(40):
        distiller._note([(0, 0)], torch.tensor([float("inf") if step == bad_step else 0.5**step]), step)
    assert not distiller._done()[0][0]
    assert float(students.lowest) < 0.5


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_alternative_that_diverges_leaves_the_others_alone(precision):
    data = Digits(ImageSettings(validation_examples=300))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10)).eval().requires_grad_(False)
    recipe = Recipe(epochs=2, batch_size=256, lr=0.1, augment="none", clip_norm=None, precision=precision)

    def trained(*rows):
        torch.manual_seed(1)
        own = nn.Linear(8, 10)
        students = Students({0: nn.ModuleList([own, *(row(8, 10) for row in rows)])})
        begun = copy.deepcopy(students.blocks.state_dict())
        distiller = Distiller(teacher, students, {0: "2"}, DistilScorer.Settings(recipe=recipe))
        result = train(students, recipe, data.load(), data, seed=0, device="cpu", backward=distiller)
        assert np.isfinite(result.history[-1]["loss"])
        return own, students, begun

    alone, *_ = trained()
    own, students, begun = trained(Overflowing)
    assert torch.equal(alone.weight, own.weight)
    assert students.restore(begun) == []  # what was no number was not learned from
    with torch.no_grad():
        students.of(0)[1].weight.fill_(torch.nan)
    assert students.restore(begun) == ["0.1"]
    assert torch.equal(students.of(0)[1].weight, begun["0.1.weight"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_are_a_failure_and_no_success(value):
    """A success without a number would make the whole table unreadable."""
    rows = Rows(
        space_id="s", scorer_id="c", seed=0, metric_name="loss", higher_is_better=False, split="validation", device=""
    )
    row = rows.of(Genotype((0,)), value, 10, 0.1)
    assert (row.status, row.metric) == ("failed", None)
    assert "no numbers" in row.message
