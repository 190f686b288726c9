"""What every scorer promises, whatever it measures."""

import pickle
import subprocess
import sys

import pytest

from nas_core.base.errors import NasError
from nas_core.records.store import Store
from nas_core.scoring import VERSIONS, Scorer, build_scorer, study_scorer_id
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig
from tests.nas_core.scoring.studies import SUPERNET, TRAIN, space_of, study, table_file

KINDS = ["train", "supernet", "tabular"]


def config_of(kind: str, folder) -> StudyConfig:
    return study({"train": TRAIN, "supernet": SUPERNET}.get(kind) or {"kind": kind, "path": str(table_file(folder))})


@pytest.fixture(scope="module", params=KINDS)
def prepared(request, tmp_path_factory):
    """(configuration, space, store, prepared scorer)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = config_of(request.param, folder)
    space, store = space_of(config), Store(folder / "store")
    scorer = build_scorer(config, space, store, "cpu")
    progress = []
    scorer.prepare(lambda done, total, message: progress.append((done, total, message)))
    assert all(0 <= done <= total for done, total, _ in progress)
    return config, space, store, scorer


def test_every_kind_has_a_version():
    assert sorted(VERSIONS) == sorted(KINDS)


def test_prepared_means_ready(prepared):
    assert prepared[3].prepared


def test_one_row_per_genotype_in_order(prepared):
    config, space, _, scorer = prepared
    genotypes = [space.parse(text) for text in ("1-0-1", "0-0-0", "1-0-1")]
    rows = scorer.evaluate(genotypes)
    assert [row.genotype for row in rows] == ["1-0-1", "0-0-0", "1-0-1"]
    for row in rows:
        assert row.status == "ok", row.message
        assert (row.space_id, row.scorer_id, row.seed) == (space.space_id, study_scorer_id(config), config.seed)
        assert (row.metric_name, row.higher_is_better, row.split) == (
            scorer.metric_name,
            scorer.higher_is_better,
            scorer.split,
        )
        assert row.metric is not None
        assert row.wall_s >= 0
        assert row.device
    assert rows[0].metric == rows[2].metric


def test_a_metric_depends_on_neither_company_nor_order(prepared):
    config, space, store, scorer = prepared
    genotypes = [space.parse(text) for text in ("2-0-1", "0-1-0", "2-1-1")]
    together = {row.genotype: row.metric for row in scorer.evaluate(genotypes)}
    other = build_scorer(config, space, store, "cpu")
    other.prepare(lambda *_: None)
    alone = {row.genotype: row.metric for genotype in reversed(genotypes) for row in other.evaluate([genotype])}
    assert together == alone


def test_one_bad_genotype_is_a_failed_row_and_the_rest_goes_on(prepared):
    space, scorer = prepared[1], prepared[3]
    bad = Genotype((0, 0, 9))
    first, failed, last = scorer.evaluate([space.parse("0-0-0"), bad, space.parse("1-1-1")])
    assert (first.status, failed.status, last.status) == ("ok", "failed", "ok")
    assert failed.metric is None
    assert "9" in failed.message
    assert failed.genotype == "0-0-9"


def test_preparing_again_returns_at_once(prepared):
    config, space, store, _ = prepared
    scorer = build_scorer(config, space, store, "cpu")
    steps = []
    scorer.prepare(lambda done, total, message: steps.append(done))
    assert len(steps) <= 1
    assert scorer.prepared


def test_nothing_to_do_is_no_rows(prepared):
    assert prepared[3].evaluate([]) == []


def test_it_satisfies_the_protocol(prepared):
    scorer: Scorer = prepared[3]
    assert scorer.split != "test"


@pytest.mark.parametrize("kind", ["train", "supernet"])
def test_the_test_split_is_never_read(kind, tmp_path, monkeypatch):
    from nas_core.workloads.images import digits

    def refuse_test(self, config, split, resolution, read=digits.Digits.read):
        assert split == "train"
        return read(self, config, split, resolution)

    monkeypatch.setattr(digits.Digits, "read", refuse_test)
    config = config_of(kind, tmp_path)
    scorer = build_scorer(config, space_of(config), Store(tmp_path / "store"), "cpu")
    scorer.prepare(lambda *_: None)
    assert scorer.evaluate([space_of(config).parse("0-0-0")])[0].status == "ok"


@pytest.mark.parametrize("kind", ["train", "supernet"])
def test_missing_images_stop_it_before_compute(kind, tmp_path):
    scorer_section = {"train": TRAIN, "supernet": SUPERNET}[kind]
    config = study(scorer_section, data={"name": "folder", "path": str(tmp_path / "none")})
    scorer = build_scorer(config, space_of(config), Store(tmp_path / "store"), "cpu")
    with pytest.raises(NasError, match=r"data\.path") as caught:
        scorer.prepare(lambda *_: None)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_scorer_ids_need_no_torch_and_follow_the_settings():
    code = (
        "import sys; from nas_core.scoring import study_scorer_id; from nas_core.study.config import StudyConfig;"
        "print(study_scorer_id(StudyConfig())); assert 'torch' not in sys.modules"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert printed == study_scorer_id(StudyConfig())
    assert study_scorer_id(study(TRAIN)) != study_scorer_id(study(SUPERNET))
    assert study_scorer_id(study({**SUPERNET, "batch": 7})) == study_scorer_id(study(SUPERNET))
    assert study_scorer_id(study({**SUPERNET, "random_paths": 2})) != study_scorer_id(study(SUPERNET))
