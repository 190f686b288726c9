"""Shared weights: what is trained in a step, resuming, and ratings that mean something."""

import numpy as np
import pytest
import torch

from nas_core.base.errors import StoreError
from nas_core.families.shared_weights import SharedWeights
from nas_core.records.store import Store
from nas_core.scoring import supernet_weights
from nas_core.scoring.supernet import SupernetScorer
from nas_core.scoring.supernet_weights import PathSampler
from nas_core.space.genotypes import SearchSpace
from nas_core.space.rules import absent_to_end
from nas_core.study.brought import scorer_of
from nas_core.training.settings import Recipe
from nas_core.workloads.classification import classification_loss
from tests.nas_core.scoring.studies import SUPERNET, build_scorer, space_of, study
from tests.nas_core.scoring.test_supernet_pass import every_kind
from tests.spaces import GivenChain, tiny


def sampler(space: SearchSpace, **settings) -> PathSampler:
    return PathSampler(SharedWeights(space, 0), GivenChain(space), SupernetScorer.Settings(**settings), 1)


def test_sandwich_trains_smallest_and_largest_in_every_step():
    paths = sampler(tiny(), random_paths=3).paths(step=5)
    assert [str(path) for path in paths[:2]] == ["0-0-0", "2-2-2"]
    assert len(paths) == 5


def test_paths_follow_from_seed_and_step():
    first, second = sampler(tiny()), sampler(tiny())
    assert [first.paths(step) for step in range(9)] == [second.paths(step) for step in range(9)]
    assert len({tuple(first.paths(step)) for step in range(9)}) > 1


def test_paths_obey_the_rules():
    space = every_kind()
    sampled = sampler(space)
    paths = [path for step in range(50) for path in sampled.paths(step)]
    assert all(space.allows(path) for path in paths)
    assert absent_to_end([(1, 9), (2, 1)]) == space.rules


def test_random_paths_take_every_block_about_equally_often():
    counts = np.zeros((3, 3))
    paths = sampler(tiny(), sandwich=False, random_paths=2)
    for step in range(300):
        for path in paths.paths(step):
            for position, choice in enumerate(path.choices):
                counts[position, choice] += 1
    assert counts.min() > 150


def test_each_module_gets_the_mean_gradient_over_the_paths_that_take_it():
    space = tiny()
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    settings = SupernetScorer.Settings(random_paths=3, recipe=Recipe(augment="none"))
    network = SharedWeights(space, 0)
    paths = PathSampler(network, GivenChain(space), settings, 1)

    def loss_of(logits):
        return classification_loss(logits, labels)

    paths(images, loss_of, 0, 0.5)
    paths(images, loss_of, 0, 0.5)  # a batch split in two parts
    paths.even_out(0)
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    expected: dict[str, list[torch.Tensor]] = {}
    for genotype in paths.paths(0):
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(images, genotype), labels).backward()
        for name, p in network.named_parameters():
            if p.grad is not None:
                expected.setdefault(name, []).append(p.grad.clone())
    assert found.keys() == expected.keys()
    for name, gradients in expected.items():
        assert torch.allclose(found[name], torch.stack(gradients).mean(0), atol=1e-5), name


def test_several_resolutions_are_trained_and_rated(tmp_path):
    base = tiny().as_dict()
    space = SearchSpace.from_dict({**base, "resolutions": [8, 6]})
    config = study(SUPERNET)
    scorer = scorer_of(config, GivenChain(space), Store(tmp_path), "cpu")
    scorer.prepare(lambda *_: None)
    rows = scorer.evaluate([space.parse("1-1-1@8"), space.parse("1-1-1@6"), space.parse("2-1-1@6")])
    assert [row.status for row in rows] == ["ok"] * 3


class Killed(BaseException):
    pass


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(supernet_weights, "CHECKPOINT_EVERY_S", 0)
    recipe = {
        "optimizer": "adamw",
        "lr": 1e-3,
        "mixup": 0.2,
        "ema_decay": 0.9,
        "drop_path": 0.2,
        "precision": "float16",
    }
    config = study({**SUPERNET, "recipe": {**SUPERNET["recipe"], **recipe}})

    def kill(done, total, message):
        if done == 5:
            raise Killed

    broken, whole = Store(tmp_path / "broken"), Store(tmp_path / "whole")
    with pytest.raises(Killed):
        build_scorer(config, broken).prepare(kill)
    assert not build_scorer(config, broken).prepared
    steps = []
    for store in (broken, whole):
        build_scorer(config, store).prepare(lambda done, total, message: steps.append(done))
    assert steps[0] == 5
    path = build_scorer(config, whole).weights_path
    assert broken.read_bytes(path) == whole.read_bytes(path)
    assert not [path for path in broken.paths() if "checkpoint" in path]


def test_how_networks_are_rated_leaves_the_shared_weights_as_they_are(tmp_path):
    store = Store(tmp_path)
    first = build_scorer(study(SUPERNET), store)
    first.prepare(lambda *_: None)
    other = build_scorer(study({**SUPERNET, "calibration_examples": 100}), store)
    assert other.scorer_id != first.scorer_id
    assert other.prepared
    assert not build_scorer(study({**SUPERNET, "random_paths": 3}), store).prepared
    before = f"scorers/{other.scorer_id}/{other.family.space.space_id}/supernet-s3.safetensors"
    store.write_bytes(before, store.read_bytes(other.weights_path))  # as earlier versions kept them
    assert other.weights_path == before


def test_damaged_weights_are_set_aside_and_trained_again(tmp_path):
    store = Store(tmp_path)
    scorer = build_scorer(study(SUPERNET), store)
    scorer.prepare(lambda *_: None)
    data = store.read_bytes(scorer.weights_path)
    store.write_bytes(scorer.weights_path, data[:-64] + bytes(64))
    with pytest.raises(StoreError, match="damaged file"):
        scorer.evaluate([scorer.family.space.parse("0-0-0")])
    assert not scorer.prepared


def test_rating_before_training_says_so(tmp_path):
    config = study(SUPERNET)
    with pytest.raises(StoreError, match=r"supernet-s3\.safetensors"):
        build_scorer(config, Store(tmp_path)).evaluate([space_of(config).parse("0-0-0")])


def test_ratings_in_parts_are_the_ratings_at_once(tmp_path, monkeypatch):
    config = study(SUPERNET)
    space, store = space_of(config), Store(tmp_path)
    scorer = build_scorer(config, store)
    scorer.prepare(lambda *_: None)
    genotypes = space.neighbours(space.parse("1-1-1"))
    at_once = [row.metric for row in scorer.evaluate(genotypes)]
    monkeypatch.setattr(supernet_weights, "MAX_ACTIVATION_BYTES", 2**20)
    assert len(list(scorer.weights._input_parts(scorer.weights.network, 8))) > 1
    assert [row.metric for row in scorer.evaluate(genotypes)] == at_once


def test_weights_that_are_no_numbers_are_failed_rows(tmp_path):
    config = study(SUPERNET)
    space = space_of(config)
    scorer = build_scorer(config, Store(tmp_path))
    scorer.prepare(lambda *_: None)
    with torch.no_grad():
        next(scorer.weights.network.block(0, 1).parameters()).fill_(float("nan"))
    bad, good = scorer.evaluate([space.parse("1-0-0"), space.parse("0-0-0")])
    assert (bad.status, good.status) == ("failed", "ok")
    assert "no finite numbers" in bad.message


def test_enough_training_rates_networks_far_above_chance(tmp_path):
    config = study({**SUPERNET, "recipe": {"epochs": 6, "batch_size": 32, "lr": 0.1, "augment": "none"}})
    space = space_of(config)
    scorer = build_scorer(config, Store(tmp_path))
    scorer.prepare(lambda *_: None)
    metrics = {row.genotype: row.metric for row in scorer.evaluate(list(space.genotypes()))}
    assert metrics["2-2-2"] > 0.4
    assert np.mean(list(metrics.values())) > 0.25
