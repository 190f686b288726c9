"""Which networks to evaluate: the base, contexts, their one-swap neighbours, held-out networks.

A context is a network in which blocks are swapped one at a time; the paper's
block performance (Eq. 3) averages over contexts. Networks that compute the
same function are listed once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nas_core.base.errors import ConfigError, SpaceError
from nas_core.records.evaluations import CostTable
from nas_core.searchers.settings import DesignConfig
from nas_core.space.encoding import Encoding, all_codes, allowed, totals
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype, SearchSpace

ENUMERATE_UP_TO = 200_000  # networks of a space that are listed to find an extreme one under rules
DRAWS = 10_000  # random networks looked at where a space is larger, or while distinct ones are sought


@dataclass(frozen=True, kw_only=True)
class Design:
    """The networks to evaluate; ``held_out`` are never fitted.

    ``swaps`` are the contexts' one-swap neighbours, or the other networks of a balanced design.
    """

    base: Genotype
    contexts: tuple[Genotype, ...]
    swaps: tuple[Genotype, ...]
    held_out: tuple[Genotype, ...]

    @property
    def fit_genotypes(self) -> tuple[Genotype, ...]:
        """What predictors are fitted to, in order of evaluation."""
        return tuple(dict.fromkeys((self.base, *self.contexts, *self.swaps)))

    @property
    def genotypes(self) -> tuple[Genotype, ...]:
        """Every distinct network to evaluate, in order."""
        return tuple(dict.fromkeys((*self.fit_genotypes, *self.held_out)))


def make_design(space: SearchSpace, config: DesignConfig, seed: int, flops: CostTable | None = None) -> Design:
    """The design of a study; the same space, settings, seed and FLOPs give the same networks.

    Where two genotypes compute one function only the first is listed, so a
    block may be represented by an equivalent network. A small space may hold
    fewer held-out networks than asked for.

    Raises:
        ConfigError: for a base that is no network of the space, or mean-flops without FLOPs.
    """
    rng = np.random.default_rng([seed, 0])
    base = base_network(space, config.base, flops, rng)
    if config.kind == "balanced":
        contexts: tuple[Genotype, ...] = (base,)
        candidates = _balanced(space, config, base, rng)
    else:
        contexts = _contexts(space, config, base, flops, rng)
        candidates = [swap for context in contexts for swap in space.neighbours(context)]
    listed = {function_id(space, genotype) for genotype in (base, *contexts)}
    swaps: list[Genotype] = []
    _add_new(space, candidates, listed, swaps)
    held_out: list[Genotype] = []
    held_out_rng = np.random.default_rng([seed, 1])
    for _ in range(max(DRAWS, 10 * config.held_out)):  # in a small space some draws repeat
        if len(held_out) == config.held_out:
            break
        _add_new(space, [space.sample(held_out_rng)], listed, held_out)
    return Design(base=base, contexts=contexts, swaps=tuple(swaps), held_out=tuple(held_out))


def _add_new(space: SearchSpace, genotypes: Iterable[Genotype], listed: set[str], to: list[Genotype]) -> None:
    """Append the networks whose function is not listed yet."""
    for genotype in genotypes:
        function = function_id(space, genotype)
        if function not in listed:
            listed.add(function)
            to.append(genotype)


def _balanced(space: SearchSpace, config: DesignConfig, base: Genotype, rng: np.random.Generator) -> list[Genotype]:
    """Networks, the base apart, in which every block occurs about equally often."""
    from nas_core.searchers.surrogate import balanced_rows

    encoding = Encoding.of(space)
    pool = [base, *(genotype for genotype in _pool(space, rng) if genotype != base)]
    wanted = config.networks or max(1, sum(space.num_choices) // 2)
    rows = balanced_rows(encoding, encoding.encode(pool), [0], wanted, rng)
    return [pool[row] for row in rows[1:]]


def _pool(space: SearchSpace, rng: np.random.Generator) -> list[Genotype]:
    return list(dict.fromkeys(space.sample(rng) for _ in range(DRAWS)))


def base_network(space: SearchSpace, name: str, flops: CostTable | None, rng: np.random.Generator) -> Genotype:
    """The base: ``largest`` or ``smallest`` by FLOPs (by choice index without them), ``random``, or a genotype."""
    if name == "random":
        return space.sample(rng)
    if name in ("largest", "smallest"):
        return _extreme(space, 1 if name == "largest" else -1, flops)
    check_base(space, name)
    return space.parse(name)


def check_base(space: SearchSpace, name: str) -> None:
    """Raises ConfigError unless ``name`` is a way to choose the base, or a genotype of the space."""
    if name in ("largest", "smallest", "random"):
        return
    try:
        space.parse(name)
    except SpaceError as error:
        expected = f"largest, smallest, random or a genotype of the space ({error.expected})"
        raise ConfigError("design.base", repr(name), expected, str(error)) from None


def _extreme(space: SearchSpace, sign: int, flops: CostTable | None) -> Genotype:
    """The network with the most (sign 1) or least FLOPs, or choice indices, at the same end of resolutions."""
    prices = flops.block if flops is not None else tuple(tuple(range(n)) for n in space.num_choices)
    choices = tuple(int(np.argmax(sign * np.asarray(row, dtype=float))) for row in prices)
    ends = {1: max(space.resolutions), -1: min(space.resolutions)}
    resolution = ends[sign] if len(space.resolutions) > 1 else None
    best = Genotype(choices, resolution)
    if space.allows(best):
        return best
    candidates = _candidates(space)
    size = CostTable(resource="size", device="", resolution=0, fixed=0.0, block=prices)
    total_N = totals(size, Encoding(space.num_choices).encode([Genotype(g.choices) for g in candidates]))
    winner = candidates[int(np.argmax(sign * total_N))]
    return Genotype(winner.choices, resolution)


def _candidates(space: SearchSpace) -> list[Genotype]:
    """Allowed networks: all of a small space, a fixed sample of a large one."""
    encoding = Encoding(space.num_choices)
    if encoding.num_networks <= ENUMERATE_UP_TO:
        codes_NP = all_codes(encoding.sizes)
        found = [encoding.genotype(code_P) for code_P in codes_NP[allowed(space.rules, codes_NP)]]
        if not found:
            raise SpaceError(f"space {space.name}.rules", "no network at all", "rules some networks satisfy")
        return found
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(DRAWS)]


def nearest_mean_flops(space: SearchSpace, flops: CostTable) -> Genotype:
    """Algorithm 1's context: at each position the block whose FLOPs are closest to the position's mean."""
    choices = tuple(int(np.argmin(np.abs(np.asarray(row) - np.mean(row)))) for row in flops.block)
    middle = sorted(space.resolutions)[len(space.resolutions) // 2] if len(space.resolutions) > 1 else None
    return Genotype(choices, middle)


def _contexts(
    space: SearchSpace, config: DesignConfig, base: Genotype, flops: CostTable | None, rng: np.random.Generator
) -> tuple[Genotype, ...]:
    """The first context as configured, the others random and of distinct functions."""
    match config.context_kind:
        case "base":
            first = base
        case "random":
            first = space.sample(rng)
        case "mean-flops":
            if flops is None:
                raise ConfigError("design.context_kind", "mean-flops without FLOPs", "base or random", "Profile flops.")
            first = nearest_mean_flops(space, flops)
            first = first if space.allows(first) else base
    listed, contexts = {function_id(space, first)}, [first]
    for _ in range(DRAWS):
        if len(contexts) == config.contexts:
            break
        _add_new(space, [space.sample(rng)], listed, contexts)
    return tuple(contexts)
