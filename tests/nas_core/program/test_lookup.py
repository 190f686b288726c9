"""The checker's look-up: whatever is named to look by, all pairs are found, and nothing that is untrue is shown."""

import ast
import copy
import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_core.program import checker, lookup, recording, write_problem
from nas_core.program.checker import check_certificate
from nas_core.program.claim import Claim
from nas_core.program.exact_table import ExactTable, UnprovenError
from nas_core.program.lookup import Direction, Endings, Listed
from nas_core.program.replay import Parts, Search, read_vectors
from tests.nas_core.program.oracle import brute_force
from tests.nas_core.program.test_replay import (
    a_random_list,
    certificate_of_branching,
    random_vectors,
    recorded,
    several_limits,
    some_rows,
    with_two_best,
)


def all_parts(search: Search, groups: tuple[int, ...]) -> Parts:
    """Every choice of some groups, as a list."""
    sizes = [range(int((~search.gone_GJ[g]).sum())) for g in groups]
    places = np.array(list(itertools.product(*sizes)))
    taken_SG = np.zeros((len(places), len(search.alive)), dtype=search.place_kind)
    taken_SG[:, list(groups)] = places
    loss_S, cost_SK = np.zeros(len(places), np.int64), np.zeros((len(places), len(search.limit_K)), np.int64)
    for g in groups:
        loss_S += search.loss_GJ[g, taken_SG[:, g]]
        cost_SK += search.cost_GJK[g, taken_SG[:, g]]
    is_possible_S = (cost_SK <= search.limit_K).all(axis=1)  # what takes more fits no smallest numbers
    left = tuple(g for g in range(len(search.alive)) if g not in groups)
    parts = Parts(left, loss_S.astype(np.int32), cost_SK.astype(search.cost_kind), taken_SG)
    return parts.at(is_possible_S)


@pytest.mark.parametrize("most_slacks", [2, 4_000])
@pytest.mark.parametrize("factor", [1, 1_000, 10**9])
@pytest.mark.parametrize("seed", range(6))
def test_all_pairs_are_found(seed: int, factor: int, most_slacks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, widths and vectors drawn at random: every network within the rows and above the bound is found, or its
    part is among those that go on.
    """
    monkeypatch.setattr(lookup, "MOST_SLACKS", most_slacks)
    monkeypatch.setattr(lookup, "CHUNK", 64)
    monkeypatch.setattr(lookup, "PAIRS", 32)
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 10, (4, 6, 4)) * factor
    value = cost.sum(axis=0) + rng.integers(0, 8, (6, 4)) * factor
    rows = [(row.tolist(), int(row.mean() * 5.5)) for row in cost]
    search = Search(value.tolist(), -int(value.mean() * 5.2), rows, [list(range(4))] * 6)
    assert not search.gone_GJ.any()
    first, second = (0, 2, 5), (1, 3, 4)
    parts = all_parts(search, first)
    wanted = set()
    for network in itertools.product(range(4), repeat=6):
        loss = sum(int(search.loss_GJ[g, c]) for g, c in enumerate(network))
        spent_K = sum(search.cost_GJK[g, c] for g, c in enumerate(network))
        if loss <= search.room and (spent_K <= search.limit_K).all():
            wanted.add(network)
    assert wanted
    num_found = 0
    for _ in range(8):
        count = int(rng.integers(0, 5))
        size = 1 << int(rng.integers(1, 28))
        vectors = rng.integers(0, size, (5, 5)) * (rng.random((5, 5)) < 0.8) + [1, 0, 0, 0, 0]
        unit, prices = read_vectors(vectors.tolist(), 4)
        row_D = tuple(rng.permutation(4)[:count].tolist())
        width_D = tuple(int(w) for w in rng.integers(1, 4 * factor, count))
        listed = Listed(search, second)
        for piece in all_parts(search, second).pieces(3):
            listed.add(piece)
        endings = Endings(search, listed, Direction(row_D, width_D, unit[:1], prices[:1]))
        found, roomy = endings.looked_up(parts, unit[1:], prices[1:])
        goes_on = {tuple(taken[list(first)].tolist()) for taken in roomy.taken_SG}
        at_hand = {network for network in wanted if tuple(network[g] for g in first) not in goes_on}
        assert set(map(tuple, found)) == at_hand  # some more than once: places share numbers
        num_found += len(at_hand)
    assert num_found or most_slacks == 2


@pytest.fixture
def looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the groups is looked up, however little there is to look through."""
    monkeypatch.setattr(recording, "FEW_IN_ALL", 0)
    monkeypatch.setattr(recording, "FEWEST_GROUPS", 2)
    monkeypatch.setattr(recording, "MOST_PARTS", 10)
    monkeypatch.setattr(recording, "FEW_PARTS", 3)
    monkeypatch.setattr(recording, "LEVELS", 1)


@pytest.mark.usefixtures("looks_up")
@pytest.mark.parametrize("style", ["whole", "huge", "masked", "float"])
@pytest.mark.parametrize("most_slacks", [1, 4_000])
def test_what_is_looked_up_shows_what_looking_at_all_networks_shows(
    style: str, most_slacks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MOST_SLACKS", most_slacks)
    num_looked_up = 0
    for stored, first, too_low in with_two_best(30, style):
        claim = Claim(stored, first)
        leaf = recorded(claim)
        claim.check_lists(leaf, claim.everything())
        num_looked_up += '"look"' in json.dumps(leaf)
        for bound in too_low:
            with pytest.raises(UnprovenError, match=r"list|endings"):
                Claim(stored, bound).check_lists(leaf, claim.everything())
    assert num_looked_up > 3


@pytest.mark.usefixtures("looks_up")
def test_where_endings_are_more_than_fit_fewer_groups_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = dict[int, list[int]]()
    for most in (1_000, 1):
        monkeypatch.setattr(lookup, "MOST_ENDINGS", most)
        for seed in range(12):
            problem = several_limits(seed, "float")
            best = brute_force(problem, 1)
            if best:
                stored = ExactTable(write_problem(problem), None)
                claim = Claim(stored, stored.value(best[0].genotype.choices))
                leaf = recorded(claim)
                claim.check_lists(leaf, claim.everything())
                sizes.setdefault(most, []).append(len(leaf.get("endings", {}).get("groups", ())))
    assert sum(sizes[1]) < sum(sizes[1_000])


def random_endings(rng: np.random.Generator, claim: Claim, num_vectors: int, num_rows: int) -> tuple[Any, Any]:
    """(endings, a list that looks them up) by rows, widths, vectors and positions drawn at random."""
    positions = rng.permutation([group[0] for group in claim.groups]).tolist()
    count = int(rng.integers(1, len(positions)))
    ending, rest = positions[:count], positions[count:]
    row_D = rng.permutation(num_rows)[: int(rng.integers(0, num_rows + 1))].tolist()
    endings = {
        "groups": ending,
        "list": a_random_list(rng, ending, num_vectors),
        "by": int(rng.integers(num_vectors)),
        "rows": row_D,
        "widths": [1 << int(rng.integers(0, 31)) for _ in row_D],
    }
    tree = a_random_list(rng, rest, num_vectors)

    def look(node: dict[str, Any], left: list[int]) -> None:
        left = [p for p in left if p not in node["groups"]]
        if left:
            for piece in node["pieces"]:
                look(piece, left)
            return
        node["look"] = rng.integers(0, num_vectors, int(rng.integers(1, 4))).tolist()
        node["pieces"] = [a_random_list(rng, ending, num_vectors) for _ in range(2)]

    look(tree, rest)
    return endings, tree


@pytest.mark.parametrize("style", ["whole", "huge", "masked", "float"])
def test_no_look_up_shows_a_bound_below_the_best_network(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file names: what is true is shown, what is not is refused."""
    rng, num_shown = np.random.default_rng(0), 0
    for stored, first, too_low in with_two_best(8, style):
        for _ in range(6):
            monkeypatch.setattr(lookup, "MOST_SLACKS", int(rng.choice([1, 5, 4_000])))
            claim = Claim(stored, first)
            rows = some_rows(rng, claim)
            vectors = random_vectors(rng, len(rows))
            endings, tree = random_endings(rng, claim, len(vectors), len(rows))
            leaf = {"rows": rows, "vectors": vectors, "list": tree, "endings": endings}
            claim.check_lists(leaf, claim.everything())
            num_shown += 1
            for bound in too_low:
                with pytest.raises(UnprovenError, match="above the bound"):
                    Claim(stored, bound).check_lists(leaf, claim.everything())
    assert num_shown > 20


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """The certificate of a problem of which half is looked up."""
    return certificate_of_branching(FEW_IN_ALL=0, FEW_PARTS=50, LEVELS=2)


def leaf_of(data: dict[str, Any]) -> dict[str, Any]:
    return dict(data["proofs"][0]["tables"][0])["tree"]


def test_the_written_one_looks_up(written: dict[str, Any]) -> None:
    assert written["certified"]
    assert '"look"' in json.dumps(leaf_of(written))
    assert leaf_of(written)["endings"]["rows"]
    assert len(check_certificate(written)) == 2


def nodes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [tree, *itertools.chain.from_iterable(map(nodes, tree.get("pieces", ())))]


def planted(leaf: dict[str, Any], rng: np.random.Generator) -> None:
    """Something in a leaf is made another: its direction, its groups, vectors, who looks by which."""
    endings, every = leaf["endings"], nodes(leaf["list"]) + nodes(leaf["endings"]["list"])
    looking = [node for node in every if "look" in node]
    num_rows = len(leaf["rows"])
    match int(rng.integers(9)):
        case 0:
            endings["rows"] = rng.integers(-1, num_rows + 1, len(endings["rows"])).tolist()
        case 1:
            endings["rows"] = rng.permutation(num_rows)[: len(endings["rows"])].tolist()
        case 2:
            endings["widths"] = [int(w) for w in rng.integers(-1, 1 << int(rng.integers(1, 34)), len(endings["rows"]))]
        case 3:
            endings["by"] = int(rng.integers(-1, len(leaf["vectors"]) + 1))
        case 4:
            endings["groups"] = rng.permutation(10)[: int(rng.integers(0, 10))].tolist()
        case 5:
            for node in looking:
                node["look"] = rng.integers(-(rng.random() < 0.2), len(leaf["vectors"]), 3).tolist()
        case 6:
            for vector in leaf["vectors"]:
                vector[:] = (rng.integers(0, 3, len(vector)) * vector).tolist()
        case 7:
            node = every[int(rng.integers(len(every)))]
            node[str(rng.choice(["by", "groups", "look", "pieces"]))] = []
        case 8:
            one, other = (every[int(i)] for i in rng.integers(len(every), size=2))
            key = str(rng.choice(["by", "groups", "look", "pieces"]))
            one[key] = copy.deepcopy(other.get(key, []))


def test_what_is_changed_shows_the_same_or_is_refused(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_TRIED", 1 << 24)
    monkeypatch.setattr("nas_core.program.claim.MOST_LISTED", 20_000)
    shown, rng = check_certificate(written), np.random.default_rng(0)
    seen = {"shown": 0, "refused": 0}
    for _ in range(150):
        data = copy.deepcopy(written)
        planted(leaf_of(data), rng)
        try:
            assert check_certificate(data) == shown
            seen["shown"] += 1
        except UnprovenError:
            seen["refused"] += 1
        # and of one unit less, which is not so, nothing shows it
        data["proofs"][0]["bound"] = str(Fraction(data["proofs"][0]["bound"]) - 1)
        with pytest.raises(UnprovenError):
            check_certificate(data)
    assert min(seen.values()) > 20


@pytest.mark.parametrize("change", ["rows", "widths", "groups", "by", "look", "none"])
def test_what_a_look_up_may_not_say_is_refused(written: dict[str, Any], change: str) -> None:
    data = copy.deepcopy(written)
    leaf = leaf_of(data)
    looking = next(node for node in nodes(leaf["list"]) if "look" in node)
    match change:
        case "rows":  # one row twice would count its slack twice
            leaf["endings"].update(rows=[0, 0], widths=[1, 1])
        case "widths":
            leaf["endings"]["widths"][0] = 0
        case "groups":
            leaf["endings"]["groups"].pop()
        case "by":
            leaf["endings"]["by"] = len(leaf["vectors"])
        case "look":
            looking["look"] = []
        case "none":
            del leaf["endings"]
    with pytest.raises(UnprovenError, match=r"list|endings"):
        check_certificate(data)


def test_more_endings_than_fit_are_refused(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_ENDINGS", 5)
    with pytest.raises(UnprovenError, match="more than 5"):
        check_certificate(written)


def test_too_many_pairs_are_refused(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_TRIED", 0)
    with pytest.raises(UnprovenError, match="same places"):
        check_certificate(written)


def test_the_checker_imports_nothing_of_the_solver() -> None:
    """What checks a proof is no part of what found it."""
    names = {"checker", "claim", "exact_table", "listing", "lookup", "replay"}
    for name in names:
        assert imports_of(name) <= names


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module of it imports."""
    nodes = ast.parse((Path(checker.__file__).parent / f"{name}.py").read_text()).body
    found = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.removeprefix("nas_core.program.") for module in found if module.startswith("nas_core.program")}
