"""Networks from scratch: a failure inside one network stays there."""

from nas_core.records.store import Store
from nas_core.scoring import build_scorer
from tests.nas_core.scoring.studies import TRAIN, space_of, study


def test_it_learns(tmp_path):
    config = study({**TRAIN, "recipe": {"epochs": 8, "lr": 0.05, "batch_size": 32, "augment": "none"}})
    space = space_of(config)
    (row,) = build_scorer(config, space, Store(tmp_path), "cpu").evaluate([space.parse("1-1-1")])
    assert row.metric > 0.8
    assert row.num_examples == 300


def test_out_of_memory_is_a_failed_row(tmp_path, monkeypatch):
    import torch

    from nas_core.scoring import train as module

    def exhausted(*arguments, **options):
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")

    monkeypatch.setattr(module, "train", exhausted)
    config = study(TRAIN)
    space = space_of(config)
    rows = build_scorer(config, space, Store(tmp_path), "cpu").evaluate([space.parse("1-1-1"), space.parse("0-0-0")])
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "OutOfMemoryError: tried to allocate 99 GiB" in rows[0].message
