"""Networks from scratch: a failure inside one network stays there."""

from nas_core.records.store import Store
from tests.nas_core.scoring.studies import TRAIN, build_scorer, space_of, study


def test_it_learns(tmp_path):
    config = study({**TRAIN, "recipe": {"epochs": 8, "lr": 0.05, "batch_size": 32, "augment": "none"}})
    space = space_of(config)
    (row,) = build_scorer(config, Store(tmp_path)).evaluate([space.parse("1-1-1")])
    assert row.metric > 0.8
    assert row.num_examples == 300


def test_each_epoch_is_a_row_of_the_learning_curve(tmp_path):
    recipe = {"epochs": 4, "lr": 0.05, "batch_size": 32, "augment": "none"}
    config = study({**TRAIN, "recipe": recipe, "validate_epochs": 2})
    space, store = space_of(config), Store(tmp_path)
    scorer = build_scorer(config, store)
    (row,) = scorer.evaluate([space.parse("1-1-1")])
    curve = store.epochs(space.space_id, scorer.scorer_id)
    assert [point.epoch for point in curve] == [1, 2, 3, 4]
    assert [point.metric is None for point in curve] == [True, False, True, False]
    assert (curve[-1].metric, curve[-1].metric_name) == (row.metric, "accuracy")
    assert curve[-1].loss < curve[0].loss
    assert len({(point.genotype, point.seed) for point in curve}) == 1
    scorer.evaluate([space.parse("1-1-1")])  # a repetition adds nothing
    assert store.epochs(space.space_id, scorer.scorer_id) == curve
    plain = build_scorer(study({**TRAIN, "recipe": recipe, "validate_epochs": 0}), store)
    assert plain.scorer_id == scorer.scorer_id
    assert plain.evaluate([space.parse("1-1-1")])[0].metric == row.metric


def test_a_recipe_may_go_by_the_metric(tmp_path):
    recipe = {"epochs": 30, "lr": 0.0001, "batch_size": 32, "augment": "none", "stop_after_epochs": 1}
    config = study({**TRAIN, "recipe": recipe, "validate_epochs": 0})
    space, store = space_of(config), Store(tmp_path)
    scorer = build_scorer(config, store)
    (row,) = scorer.evaluate([space.parse("0-0-0")])
    metrics = [point.metric for point in store.epochs(space.space_id, scorer.scorer_id)]
    assert len(metrics) < 30
    assert metrics[-1] <= max(metrics[:-1])
    assert row.metric == max(metrics), "the best epoch's weights are kept, not the last one's"


def test_out_of_memory_is_a_failed_row(tmp_path, monkeypatch):
    import torch

    from nas_core.training import loop as module

    def exhausted(*arguments, **options):
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")

    monkeypatch.setattr(module, "train", exhausted)
    config = study(TRAIN)
    space = space_of(config)
    rows = build_scorer(config, Store(tmp_path)).evaluate([space.parse("1-1-1"), space.parse("0-0-0")])
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "OutOfMemoryError: tried to allocate 99 GiB" in rows[0].message
