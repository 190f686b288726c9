"""Which networks to evaluate first: a balanced design or one-swap neighbours, and held-out networks.

A balanced design holds the base and networks in which every block occurs about
equally often. A context is a network in which blocks are swapped one at a time;
the paper's block performance (Eq. 3) averages over contexts. Networks that
compute the same function are listed once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nas_core.base.errors import ConfigError, SpaceError
from nas_core.records.evaluations import CostTable
from nas_core.searchers.settings import DesignConfig
from nas_core.searchers.surrogate import DESIGN_CANDIDATES, balanced_rows, balanced_size
from nas_core.space.encoding import Encoding
from nas_core.space.equivalence import function_id
from nas_core.space.extremes import extreme_genotypes
from nas_core.space.genotypes import Genotype, SearchSpace

DRAWS = 10_000  # random networks looked at while distinct ones are sought


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
        candidates = _balanced(space, base, config.networks or balanced_size(Encoding.of(space)), rng)
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


def _balanced(space: SearchSpace, base: Genotype, num: int, rng: np.random.Generator) -> list[Genotype]:
    """``num`` networks, the base among them but not listed, in which every block occurs about equally often.

    Chosen among random networks of distinct functions, and the base's
    neighbours, which hold what rules make rare.
    """
    encoding, wanted = Encoding.of(space), max(DESIGN_CANDIDATES, 4 * num)
    if encoding.num_networks <= wanted:
        candidates = list(space.genotypes())
        rng.shuffle(candidates)
    else:
        candidates = [*(space.sample(rng) for _ in range(wanted)), *space.neighbours(base)]
    pool: list[Genotype] = [base]
    _add_new(space, candidates, {function_id(space, base)}, pool)
    rows = balanced_rows(encoding, encoding.encode(pool), [0], num)
    return [pool[row] for row in rows[1:]]


def base_network(space: SearchSpace, name: str, flops: CostTable | None, rng: np.random.Generator) -> Genotype:
    """The base: ``largest`` or ``smallest`` by FLOPs (by choice index without them), ``random``, or a genotype."""
    if name == "random":
        return space.sample(rng)
    if name in ("largest", "smallest"):
        tables = [flops] if flops is not None and any(map(any, flops.block)) else []  # of plain choices all are 0
        smallest, largest = extreme_genotypes(space, tables)
        return largest if name == "largest" else smallest
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
