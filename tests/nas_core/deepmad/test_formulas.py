"""The closed forms against the published values, the golden values and the plain layer-by-layer count."""

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from nas_core.base.errors import DataError
from nas_core.deepmad.formulas import PAPER, TINYNAS, Batch, effectiveness, flops, params, rate
from nas_core.deepmad.structure import Structure, published
from tests.nas_core.deepmad import plain
from tests.nas_core.deepmad.structures import GOLDEN, from_list, random_structure

# README and code of the authors: score, FLOPs (G), params without classifier (M), rho
PUBLISHED = {
    "R18": (32085.40, 1.8373, 11.1531, 0.2991),
    "R34": (43107.87, 3.6753, 21.0732, 0.3000),
    "R50": (48884.47, 4.0873, 24.2081, 0.2998),
    "29M-224": (11870.70, 4.4489, 26.8770, 0.4965),
    "29M-288": (11682.05, 4.4346, 26.9106, 0.4966),
    "50M": (14644.16, 8.6113, 47.3600, 0.4930),
    "89M": (17746.37, 15.2573, 85.7648, 0.4951),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    rating = rate(published()[name].structure, TINYNAS)
    score, giga, mega, rho = PUBLISHED[name]
    assert rating.score == pytest.approx(score, abs=0.005)
    assert rating.flops / 1e9 == pytest.approx(giga, abs=0.00005)
    assert rating.params / 1e6 == pytest.approx(mega, abs=0.00005)
    assert rating.rho == pytest.approx(rho, abs=0.00005)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_structures_layer_by_layer(name: str) -> None:
    structure = published()[name].structure
    assert rate(structure, TINYNAS).score == pytest.approx(plain.score(structure, "tinynas"), rel=1e-12)
    assert rate(structure, PAPER).score == pytest.approx(plain.score(structure, "paper"), rel=1e-12)


def test_golden_values() -> None:
    rows = json.loads(GOLDEN.read_text())["rows"]
    assert len(rows) == 1000
    for row in rows:
        structure = from_list(row[:5])
        expected_flops, expected_params, rho, tinynas, paper = row[5:]
        rating = rate(structure, TINYNAS)
        assert (rating.flops, rating.params) == (expected_flops, expected_params)
        assert rating.rho == pytest.approx(rho, rel=1e-12)
        assert rating.score == pytest.approx(tinynas, rel=1e-12)
        assert rate(structure, PAPER).score == pytest.approx(paper, rel=1e-12)


def seen_in(structure: Structure, image_channels: int) -> Structure:
    """The structure for images of so many channels."""
    return replace(structure, skeleton=replace(structure.skeleton, image_channels=image_channels))


def test_closed_forms_equal_a_count_of_layers() -> None:
    rng = random.Random(99)
    for structure in (seen_in(random_structure(rng), rng.choice((1, 3, 4, 10))) for _ in range(200)):
        assert Structure.from_dict(structure.as_dict()) == structure
        rating = rate(structure, TINYNAS)
        assert rating.flops == plain.flops(structure)
        assert rating.params == plain.params(structure)
        assert rating.rho == pytest.approx(plain.rho(structure), rel=1e-12)


def test_a_batch_is_its_structures() -> None:
    structures = [published()["R18"].structure] * 3
    batch = Batch.of(structures)
    assert batch.structure(1) == structures[1]
    assert len(set(TINYNAS.score(batch))) == 1


def test_json_round_trip() -> None:
    for known in published().values():
        assert Structure.from_dict(json.loads(json.dumps(known.structure.as_dict()))) == known.structure


def test_the_objectives_differ_where_the_docs_say() -> None:
    small = Structure.from_dict({**published()["29M-224"].structure.as_dict(), "resolution": 288})
    assert TINYNAS.score(Batch.of([small])) == TINYNAS.score(Batch.of([published()["29M-224"].structure]))
    assert PAPER.score(Batch.of([small])) != PAPER.score(Batch.of([published()["29M-224"].structure]))


@pytest.mark.slow
def test_a_million_structures_a_second() -> None:
    batch = Batch.of([published()["R18"].structure]).take(np.zeros(20_000, dtype=int))
    begin = time.process_time()
    for _ in range(10):
        TINYNAS.score(batch), flops(batch), params(batch), effectiveness(batch)
    assert 200_000 / (time.process_time() - begin) > 1e6


@pytest.mark.parametrize(("rows", "found"), [({}, "no structure"), ({"structure": 3}, "'int' object is not iterable")])
def test_what_is_no_structure_is_said(rows, found):
    with pytest.raises(DataError, match=f"^structure: found {found}, expected rows with kind"):
        Structure.from_dict(rows)
