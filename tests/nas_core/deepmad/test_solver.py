"""The solver against brute force on tiny domains, and its bounds, limits and errors."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas_core.base.errors import ConfigError, InfeasibleError
from nas_core.deepmad.barrier import relax
from nas_core.deepmad.channels import best_channels
from nas_core.deepmad.concave import Nodes, Program, nonempty, root, stack, tighten
from nas_core.deepmad.domain import BlockDomain, Domain, Limits, default_domain, read_changes, usages, verify, within
from nas_core.deepmad.formulas import PAPER, TINYNAS, Batch, Objective, rate
from nas_core.deepmad.latency_table import LatencyTable
from nas_core.deepmad.polish import least_row, to_batch
from nas_core.deepmad.solver import design
from nas_core.deepmad.structure import Skeleton, published
from nas_core.deepmad.tree import Tree


def tiny(family: str) -> Domain:
    """Two super-blocks with a few thousand structures: small enough to list."""
    skeleton = Skeleton(family=family, resolution=32, strides=(2, 2), head=64 if family == "mobilenet" else None)
    top, wide = (64, 64) if family == "resnet" else (24, 64)
    block = BlockDomain(out=(16, top), bottleneck=(8, wide), kernels=(3, 5), depth=(1, 3))
    last = BlockDomain(out=(16, top), bottleneck=(8, wide), kernels=(3,), depth=(1, 4))
    narrow, ratio = (0.1, 1.0) if family == "resnet" else (1.5, 6.0)
    growth = 4.0 if family == "resnet" else None
    return Domain(skeleton=skeleton, stem=(16, 16), blocks=(block, last), narrow=narrow, wide=ratio, growth=growth)


def every_row(domain: Domain) -> np.ndarray:
    """All structures of a domain as rows."""
    step = domain.step

    def channels(ends: tuple[int, int]) -> list[int]:
        return list(range(domain.multiple_above(ends[0]), domain.multiple_below(ends[1]) + 1, step))

    blocks = domain.blocks
    columns = [channels(domain.stem), *(channels(b.out) for b in blocks), *(channels(b.bottleneck) for b in blocks)]
    columns += [list(b.kernels) for b in blocks] + [list(range(b.depth[0], b.depth[1] + 1)) for b in blocks]
    rows = np.array(list(itertools.product(*columns)), dtype=np.int64)
    return rows[domain.inside(to_batch(domain, rows))]


CASES = [
    ("resnet", TINYNAS, Limits(flops=3_000_000, params=60_000, rho=0.5)),
    ("resnet", PAPER, Limits(flops=2_000_000)),
    ("mobilenet", TINYNAS, Limits(flops=1_500_000, params=30_000, rho=1.0)),
    ("mobilenet", PAPER, Limits(params=20_000)),
]


@pytest.mark.parametrize("image_channels", [3, 10])
@pytest.mark.parametrize(("family", "objective", "limits"), CASES)
def test_the_solver_is_as_good_as_listing_everything(
    family: str, objective: Objective, limits: Limits, image_channels: int
) -> None:
    domain = tiny(family)
    domain = replace(domain, skeleton=replace(domain.skeleton, image_channels=image_channels))
    batch = to_batch(domain, every_row(domain))
    best = float(objective.score(batch)[within(batch, limits)].max())
    answer = design(domain, limits, objective, gap=0.0, cpu_s=30.0)
    assert answer.rating.score == pytest.approx(best, rel=1e-12)
    assert answer.status == "optimal"
    assert answer.bound == pytest.approx(best, rel=1e-9)
    assert not verify(answer.structure, domain, limits).broken


@pytest.mark.parametrize(("family", "objective", "limits"), CASES)
def test_a_bound_is_above_every_structure_of_its_box(family: str, objective: Objective, limits: Limits) -> None:
    domain = tiny(family)
    program = Program(domain, limits, objective)
    rows = every_row(domain)
    batch = to_batch(domain, rows)
    score = np.where(within(batch, limits), objective.score(batch), -np.inf)
    rng = np.random.default_rng(0)
    whole = root(program)
    S, layout = domain.skeleton.num_blocks, program.layout
    boxes: list[Nodes] = []
    for _ in range(30):  # random boxes around random structures
        node = whole.copy()
        row = rows[rng.integers(len(rows))].astype(float)
        point = np.concatenate([np.log(row[: 1 + 3 * S]), row[1 + 3 * S :]])
        spread = rng.choice([0.0, 0.4, 1.0], size=len(point)) * np.where(np.arange(len(point)) > 3 * S, 1.0, 0.5)
        node.low_BV[0, : len(point)] = np.maximum(node.low_BV[0, : len(point)], point - spread)
        node.high_BV[0, : len(point)] = np.minimum(node.high_BV[0, : len(point)], point + spread)
        boxes.append(tighten(program, node))
    nodes = stack(boxes)
    nodes = nodes.take(np.flatnonzero(nonempty(nodes)))
    bounds = relax(program, nodes, precision=1e-3, prune=-np.inf).bound_B
    logs = np.concatenate([np.log(rows[:, : 1 + 3 * S]), rows[:, 1 + 3 * S :]], axis=1)
    size = layout.size - S
    for j in range(len(nodes)):
        inside = (logs >= nodes.low_BV[j, :size] - 1e-9) & (logs <= nodes.high_BV[j, :size] + 1e-9)
        assert score[inside.all(axis=1)].max(initial=-np.inf) <= bounds[j] + 1e-9


def test_channels_by_cp_sat_are_the_best_with_these_depths() -> None:
    domain, limits = tiny("resnet"), Limits(flops=3_000_000, params=60_000, rho=0.5)
    rows = every_row(domain)
    rows = rows[(rows[:, -2:] == [1, 3]).all(axis=1) & (rows[:, 5] == 5)]
    batch = to_batch(domain, rows)
    best = float(TINYNAS.score(batch)[within(batch, limits)].max())
    program = Program(domain, limits, TINYNAS)
    found = best_channels(program, (5, 3), (1, 3), above=-np.inf, hint=None, seconds=20)
    assert found.row is not None
    assert rate(to_batch(domain, found.row[None]).structure(0), TINYNAS).score == pytest.approx(best, rel=1e-9)
    assert found.proved
    assert found.bound >= best


def test_latency_is_a_limit_over_measured_shapes() -> None:
    domain = tiny("resnet")
    block_us = {}
    for c, o, b, k in itertools.product((16, 32, 64), (16, 32, 64), (8, 16, 32), (3, 5)):
        for stride, side in ((2, 16), (2, 8), (1, 8), (1, 4)):
            block_us[(c, o, b, k, stride, side)] = 1.0 + c * b / 100 + o * b / 100 + b * b * k * k / 500
    table = LatencyTable(device="made up", block_us=block_us, fixed_us=3.0)
    limits = Limits(latency_us=150, latency_table=table)
    rows = every_row(domain)
    batch = to_batch(domain, rows)
    best = float(TINYNAS.score(batch)[within(batch, limits)].max())
    answer = design(domain, limits, TINYNAS, gap=0.0, cpu_s=40.0)
    assert answer.rating.score == pytest.approx(best, rel=1e-12)
    assert answer.check.usage["latency_us"] <= 150
    with pytest.raises(InfeasibleError, match=r"latency_us 5 \(at least \d+\.?\d* alone\)"):
        design(domain, replace(limits, latency_us=5), TINYNAS, gap=0.0, cpu_s=5.0)


def test_a_latency_that_takes_the_limit_to_the_last_digit_keeps_it() -> None:
    """Times are no whole nanoseconds: none of them is counted as more than it is."""
    shapes = itertools.product((16, 32, 64), (16, 32, 64), (8, 16, 32), (3, 5), ((2, 16), (2, 8), (1, 8), (1, 4)))
    block_us = {(c, o, b, k, *at): 1.0000004 if o == 16 else 9.0 for c, o, b, k, at in shapes}
    table = LatencyTable(device="made up", block_us=block_us, fixed_us=7.9999991)
    program = Program(tiny("resnet"), Limits(latency_us=10, latency_table=table), TINYNAS)
    found = best_channels(program, (3, 3), (1, 1), above=-np.inf, hint=None, seconds=20)
    assert found.row is not None
    assert within(to_batch(program.domain, found.row[None]), program.limits).all()


def test_a_search_of_no_time_ends_at_once() -> None:
    begin = time.process_time()
    answer = design(tiny("resnet"), Limits(flops=3_000_000), TINYNAS, gap=0.0, cpu_s=1e-3)
    assert (answer.status, answer.solved_nodes) == ("time", 1)
    assert time.process_time() - begin < 30


def test_fixed_parts_and_other_steps_are_kept(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "domain.yaml"
    path.write_text("step: 16\nblocks:\n- out: 32\n  depth: 2\n- kernels: [3]\n  bottleneck: [16, 48]\n")
    domain = read_changes(tiny("resnet"), path)
    answer = design(domain, Limits(flops=3_000_000), TINYNAS, gap=0.0, cpu_s=20.0)
    first, second = answer.structure.blocks
    assert (first.out, first.depth) == (32, 2)
    assert all(value % 16 == 0 for value in (first.bottleneck, second.out, second.bottleneck))
    path.write_text("blocks:\n- colour: 3\n- {}\n")
    with pytest.raises(ConfigError, match="colour"):
        read_changes(tiny("resnet"), path)


def test_the_same_seed_gives_the_same_answer() -> None:
    limits = Limits(flops=3_000_000, params=60_000, rho=0.5)
    answers = [design(tiny("resnet"), limits, TINYNAS, gap=1e-3, cpu_s=20.0, seed=3) for _ in range(2)]
    assert answers[0].structure == answers[1].structure
    assert answers[0].bound == answers[1].bound


def test_limits_that_cannot_be_kept_say_what_is_attainable() -> None:
    with pytest.raises(InfeasibleError) as caught:
        design(tiny("resnet"), Limits(flops=100, params=60_000, rho=0.5), TINYNAS, cpu_s=10.0)
    text = str(caught.value)
    assert "Not even the smallest structure keeps flops." in text
    assert "params 60,000 (at least" in text


@pytest.mark.parametrize(
    "rules", [{}, {"monotone": False}, {"narrow": 1.0, "wide": 1.0}, {"growth": 1.0}, {"stem": (8, 24)}], ids=str
)
@pytest.mark.parametrize("family", ["resnet", "mobilenet"])
def test_the_smallest_structure_costs_the_least_of_all(family: str, rules: dict[str, Any]) -> None:
    domain = replace(tiny(family), **rules)
    rows = every_row(domain)
    used = usages(to_batch(domain, rows), Limits(flops=1, params=1))
    smallest = least_row(domain)
    assert (rows == smallest).all(axis=1).any()
    assert (rows >= smallest).all()
    for name, value_B in usages(to_batch(domain, smallest[None]), Limits(flops=1, params=1)).items():
        assert value_B[0] == used[name].min(), name


def test_a_limit_below_the_smallest_structure_is_answered_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "run", lambda *_: pytest.fail("searched"))
    domain = default_domain(published()["R18"].structure.skeleton)
    with pytest.raises(InfeasibleError, match="Not even the smallest structure keeps params") as caught:
        design(domain, Limits(flops=1_820_000_000, params=1_000), TINYNAS, cpu_s=10_000.0)
    least = usages(to_batch(domain, least_row(domain)[None]), Limits(flops=1, params=1))
    assert f"{least['params'][0]:,.0f}" in str(caught.value)


def test_colliding_limits_are_named_together() -> None:
    domain = tiny("resnet")
    batch = to_batch(domain, every_row(domain))
    used = usages(batch, Limits(flops=10**12, rho=10.0))
    lean = used["flops"] <= np.quantile(used["flops"], 0.02)
    rho = float(used["rho"][lean].min()) * 0.98
    flops = int(used["flops"][lean].max())
    assert (used["rho"] <= rho).any()
    with pytest.raises(InfeasibleError, match="flops, rho"):
        design(domain, Limits(flops=flops, params=10**9, rho=rho), TINYNAS, cpu_s=10.0)


def test_progress_is_reported_and_never_worsens() -> None:
    known = published()["R18"]
    tree = Tree(
        Program(default_domain(known.structure.skeleton), Limits(flops=1.82e9, params=11.69e6, rho=0.3), TINYNAS), 0.3
    )
    seen = []
    import time

    tree.run(time.process_time() + 3.0, seen.append)
    assert all(a.score <= b.score for a, b in itertools.pairwise(seen))
    assert all(a.bound >= b.bound - 1e-6 or b.bound <= a.score * 1.31 for a, b in itertools.pairwise(seen))
    assert tree.score > 32_085.40  # the published structure's


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"), [("R18", 36_409.39), ("R34", 48_535.78), ("R50", 51_989.12), ("29M-224", 17_888.82)]
)
def test_the_authors_limits(name: str, least: float) -> None:
    known = published()[name]
    skeleton = Skeleton(
        family=known.structure.skeleton.family,
        resolution=224,
        strides=known.search_strides,
        head=known.structure.skeleton.head,
    )
    limits = Limits(flops=known.flops_limit, params=known.params_limit, rho=known.rho_limit)
    answer = design(default_domain(skeleton), limits, TINYNAS, gap=0.0 if name == "R18" else 3e-4, cpu_s=60.0)
    assert answer.rating.score >= least
    assert answer.gap <= 1e-3


def test_rows_round_trip() -> None:
    from tests.benchmarks.peers.deepmad_evolution import to_row

    structure = published()["R18"].structure
    domain = default_domain(structure.skeleton)
    assert to_batch(domain, to_row(structure)[None]).structure(0) == structure
    assert Batch.of([structure]).structure(0) == structure


def test_no_torch_is_imported() -> None:
    code = "import nas_core.deepmad.solver, sys; assert not {'torch', 'timm', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_design_command(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import typer
    from typer.testing import CliRunner

    from flows.design_command import design as command

    app = typer.Typer()
    app.command()(command)
    path = tmp_path / "r18.json"
    path.write_text(json.dumps(published()["R18"].structure.as_dict()))
    rated = CliRunner().invoke(app, ["--score", str(path), "--json"])
    assert json.loads(rated.output.splitlines()[-1])["flops"] == 1_837_323_208
    small = ["--flops", "40 M", "--params", "600 k", "--rho", "0.5", "--resolution", "64", "--gap", "0.5"]
    done = CliRunner().invoke(app, [*small, "--time", "10", "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output.splitlines()[-1])
    assert answer["flops"] <= 40e6
    assert answer["score"] <= answer["bound"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"architecture.json", "entropy.png", "structure.png"}


def test_a_frontier_rises_with_its_limit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from nas_core.deepmad.drawings import draw_frontier
    from nas_core.deepmad.solver import sweep
    from tests.benchmarks.deepmad import draw_race

    limits = Limits(flops=3_000_000, params=60_000)
    answers = sweep(tiny("resnet"), limits, TINYNAS, "flops", 3, gap=0.0, cpu_s=20.0)
    scores = [answer.rating.score for answer in answers]
    assert scores == sorted(scores)
    draw_frontier(answers, "flops", tmp_path / "frontier.png")
    draw_race({"ours": [(0.5, 1.0), (1.0, 2.0)]}, 3.0, "a race", tmp_path / "race.png")
    assert (tmp_path / "frontier.png").stat().st_size > 5_000
    with pytest.raises(ConfigError, match="rho"):
        sweep(tiny("resnet"), limits, TINYNAS, "rho", 3)


def test_the_evolution_keeps_the_limits_and_its_seed() -> None:
    from tests.benchmarks.deepmad import problem
    from tests.benchmarks.peers.deepmad_evolution import Evolution

    for name in ("R18", "29M-224"):
        domain, limits, start = problem(name)
        runs = [Evolution(domain, limits, TINYNAS, start, fixed=True).run(2, 5_000, seed=1) for _ in range(2)]
        assert (runs[0].rows == runs[1].rows).all()
        assert within(to_batch(domain, runs[0].rows), limits).all()
        assert runs[0].best_R.max() > rate(start, TINYNAS).score
        released = Evolution(domain, limits, TINYNAS, start, fixed=False).run(2, 5_000, seed=1)
        if name == "R18":  # the last super-block stays as it started
            assert (released.rows[:, [5, 20]] == [2048, 1]).all()
