import numpy as np
import pytest

from nas_core.base.errors import ConfigError
from nas_core.records.evaluations import CostTable
from nas_core.searchers.designs import make_design, nearest_mean_flops
from nas_core.searchers.settings import DesignConfig
from nas_core.space.encoding import Encoding
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from nas_core.space.rules import Rule, absent_to_end
from nas_core.study.config import parse_config
from tests.nas_core.prediction.examples import plain_space, stage_space
from tests.spaces import build_space


def test_one_swap_design_measures_every_block_once():
    space = plain_space((3, 2, 4))
    design = make_design(space, DesignConfig(kind="one-swap", held_out=4), seed=0)
    assert design.base == Genotype((2, 1, 3))
    assert set(design.swaps) == set(space.neighbours(design.base))
    assert len(design.fit_genotypes) == 1 + 2 + 1 + 3
    assert len(design.held_out) == 4
    assert not set(design.held_out) & set(design.fit_genotypes)
    assert design.genotypes == (*design.fit_genotypes, *design.held_out)


def test_design_is_a_function_of_its_seed():
    space, config = plain_space(), DesignConfig(base="random", held_out=3)
    assert make_design(space, config, seed=1) == make_design(space, config, seed=1)
    assert make_design(space, config, seed=1) != make_design(space, config, seed=2)


def test_base_by_flops():
    space, flops = (
        plain_space((2, 2)),
        CostTable(resource="flops", device="", resolution=8, fixed=0.0, block=((5.0, 1.0), (1.0, 9.0))),
    )
    assert make_design(space, DesignConfig(base="largest"), 0, flops).base == Genotype((0, 1))
    assert make_design(space, DesignConfig(base="smallest"), 0, flops).base == Genotype((1, 0))
    assert make_design(space, DesignConfig(base="1-1"), 0, flops).base == Genotype((1, 1))


def test_without_costs_the_base_goes_by_the_order_of_choices():
    """Plain choices have a table of FLOPs, in which all are 0."""
    nothing = CostTable(resource="flops", device="", resolution=8, fixed=0.0, block=((0.0, 0.0), (0.0, 0.0)))
    assert make_design(plain_space((2, 2)), DesignConfig(base="largest"), 0, nothing).base == Genotype((1, 1))
    assert make_design(plain_space((2, 2)), DesignConfig(base="smallest"), 0, nothing).base == Genotype((0, 0))


def test_base_obeys_rules():
    space = plain_space((2, 2, 2), rules=(Rule(kind="forbid", blocks=((0, 1), (1, 1))),))
    design = make_design(space, DesignConfig(base="largest", held_out=1), seed=0)
    assert sum(design.base.choices) == 2
    assert all(space.allows(genotype) for genotype in design.genotypes)


def test_largest_takes_the_largest_resolution():
    space = plain_space((2, 2), resolutions=(8, 16))
    assert make_design(space, DesignConfig(base="largest"), 0).base == Genotype((1, 1), 16)
    assert make_design(space, DesignConfig(base="smallest"), 0).base == Genotype((0, 0), 8)


def test_nearest_mean_flops_context():
    space = plain_space((3, 3))
    block = ((1.0, 2.0, 9.0), (1.0, 5.0, 9.0))
    flops = CostTable(resource="flops", device="", resolution=8, fixed=0.0, block=block)
    assert nearest_mean_flops(space, flops) == Genotype((1, 1))
    design = make_design(space, DesignConfig(kind="one-swap", context_kind="mean-flops"), 0, flops)
    assert design.contexts == (Genotype((1, 1)),)


def test_equal_functions_are_listed_once():
    space = stage_space(3)
    for kind in ({"kind": "one-swap", "contexts": 2}, {"kind": "balanced", "networks": 5}):
        design = make_design(space, DesignConfig(base="0-0-1", held_out=5, **kind), seed=0)
        functions = [space.architecture(genotype).function_id for genotype in design.genotypes]
        assert len(set(functions)) == len(functions)


def test_small_space_has_fewer_held_out_networks():
    for kind in ("one-swap", "balanced"):
        design = make_design(plain_space((2, 2)), DesignConfig(kind=kind, held_out=50), seed=0)
        assert len(design.genotypes) == 4


@pytest.mark.parametrize("settings", [{"base": "9-9-9"}, {"base": "big"}, {"context_kind": "mean-flops"}])
def test_wrong_settings_name_their_field(settings):
    with pytest.raises(ConfigError, match=rf"design\.{next(iter(settings))}"):
        make_design(plain_space(), DesignConfig(kind="one-swap", **settings), seed=0)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [({"contexts": 2}, "kind: one-swap"), ({"context_kind": "random"}, "kind: one-swap"),
     ({"kind": "one-swap", "networks": 9}, "kind: balanced")],
)  # fmt: skip
def test_settings_of_the_other_kind_are_refused(settings, advice):
    with pytest.raises(ConfigError, match=f"design: found .*, expected {advice}"):
        parse_config({"design": settings}, "test")


def counts_of(space, networks):
    """How often every block, and every resolution, occurs."""
    encoding = Encoding.of(space)
    return encoding.one_hot(encoding.encode(networks)).sum(axis=0)


RULES = (Rule(kind="forbid", blocks=((0, 1), (1, 1))), *absent_to_end([(1, 0), (2, 0), (3, 0)]))
SPACES = {
    "tiny": plain_space((2, 2)),
    "one position": plain_space((7,)),
    "ragged": plain_space((2, 9, 3, 5)),
    "very ragged": plain_space((2, 8, 36, 24, 24, 63, 24, 12, 2)),
    "rules": plain_space((3, 4, 3, 3, 2), rules=RULES),
    "resolutions": plain_space((3, 3, 3), resolutions=(8, 16, 24)),
    "equal functions": stage_space(4),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_default_design_is_sensible(name):
    """The base, every block at least once, about equally often where nothing forbids it; no function twice."""
    space = SPACES[name]
    design = make_design(space, DesignConfig(), seed=0)
    blocks = Encoding.of(space).num_columns
    assert design.fit_genotypes[0] == design.base
    assert all(space.allows(genotype) for genotype in design.genotypes)
    functions = [function_id(space, genotype) for genotype in design.genotypes]
    assert len(set(functions)) == len(functions)
    assert len(design.fit_genotypes) >= min(blocks // 2, 4)
    counts = counts_of(space, design.fit_genotypes)
    if name not in ("equal functions",):  # in which one network stands for several genotypes
        assert counts.min() >= 1
    if name in ("ragged", "resolutions"):
        assert all(np.ptp(place) <= 3 for place in np.split(counts, Encoding.of(space).offsets[1:]))
    assert design == make_design(space, DesignConfig(), seed=0)


def test_a_balanced_design_holds_every_block_about_equally_often():
    space = build_space("nasbench-macro")
    design = make_design(space, DesignConfig(kind="balanced", networks=18, held_out=3), 0)
    assert len(design.fit_genotypes) == 18
    counts = [[sum(g.choices[p] == c for g in design.fit_genotypes) for c in range(3)] for p in range(8)]
    assert all(3 <= count <= 9 for row in counts for count in row)
    assert design == make_design(space, DesignConfig(kind="balanced", networks=18, held_out=3), 0)
