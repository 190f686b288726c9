"""A network as a strip of blocks: where each block stands, how big it is drawn, its colour and label.

Layout only; ``figures`` paints it with matplotlib and ``page`` as inline SVG,
so the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nas_core.report.summary import StudySummary
from nas_core.report.text import describe_block, format_amount, resource_name
from nas_core.space.genotypes import NO_OPS, BlockSpec, Genotype, SearchSpace

MAX_KINDS = 8  # colours that can be told apart; beyond, blocks share the colour of their kind
NO_OP_KIND = -1
LEAST_HEIGHT = 0.06


@dataclass(frozen=True, kw_only=True, slots=True)
class StripBlock:
    """One block. ``height`` in (0, 1] is its share of the dearest block's cost drawn."""

    position: int
    label: str
    kind: int  # index into ``Strip.kinds``, or NO_OP_KIND
    height: float
    cost: float | None
    differs: bool  # from the base network
    hover: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StripStage:
    """Consecutive positions that share a shape."""

    first: int
    last: int
    label: str  # such as "16 × 16, 64 channels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One network's blocks in order, with the stages they form."""

    genotype: str
    blocks: tuple[StripBlock, ...]
    stages: tuple[StripStage, ...]
    kinds: tuple[str, ...]
    resource: str | None  # what the heights show; None: all are alike


def strips(summary: StudySummary, genotypes: Sequence[str]) -> tuple[Strip, ...]:
    """The strips of several networks on one scale, so that heights compare across them."""
    parsed = [Genotype.parse(text) for text in genotypes]
    resource = _drawn_resource(summary)
    costs = [_block_costs(summary, resource, genotype) for genotype in parsed]
    dearest = max((cost for row in costs for cost in row if cost is not None), default=0.0) or 1.0
    kinds = block_kinds(summary.space)
    base = Genotype.parse(summary.base)
    return tuple(
        Strip(
            genotype=text,
            blocks=tuple(
                _strip_block(summary.space, kinds, genotype, base, position, cost, dearest, resource)
                for position, cost in enumerate(row)
            ),
            stages=stages(summary.space, genotype),
            kinds=kinds,
            resource=resource or None,
        )
        for text, genotype, row in zip(genotypes, parsed, costs, strict=True)
    )


def _drawn_resource(summary: StudySummary) -> str:
    """The resource block heights show: the first limited one that is priced per block; "" if none is."""
    priced = [table.resource for table in summary.cost_tables]
    limited = [limit.resource for limit in summary.limits if limit.resource in priced]
    return next(iter([*limited, *priced]), "")


def _block_costs(summary: StudySummary, resource: str, genotype: Genotype) -> list[float | None]:
    for table in summary.cost_tables:
        if table.resource == resource and genotype.resolution in (None, table.resolution):
            return [row[choice] for row, choice in zip(table.block, genotype.choices, strict=True)]
    return [None] * len(genotype.choices)


def _strip_block(
    space: SearchSpace,
    kinds: tuple[str, ...],
    genotype: Genotype,
    base: Genotype,
    position: int,
    cost: float | None,
    dearest: float,
    resource: str,
) -> StripBlock:
    choice = genotype.choices[position]
    spec = space.positions[position].blocks[choice]
    words = describe_block(spec)
    price = f", {format_amount(resource, cost)} {resource_name(resource)}" if cost is not None else ""
    return StripBlock(
        position=position,
        label=str(choice),
        kind=kind_of(spec, kinds),
        height=0.6 if cost is None else max(cost / dearest, LEAST_HEIGHT),
        cost=cost,
        differs=choice != base.choices[position],
        hover=f"position {position}: choice {choice}, {words}{price}",
    )


def block_kinds(space: SearchSpace) -> tuple[str, ...]:
    """Names of the colours: every distinct block if they are few, else every kind of block."""
    specs = dict.fromkeys(spec for position in space.positions for spec in position.blocks if spec.kind not in NO_OPS)
    whole = tuple(dict.fromkeys(describe_block(spec) for spec in specs))
    if len(whole) <= MAX_KINDS:
        return whole
    return tuple(dict.fromkeys(spec.kind.replace("_", " ") for spec in specs))


def kind_of(spec: BlockSpec, kinds: tuple[str, ...]) -> int:
    """Index of the block's colour among ``kinds``."""
    if spec.kind in NO_OPS:
        return NO_OP_KIND
    name = describe_block(spec)
    return kinds.index(name if name in kinds else spec.kind.replace("_", " "))


def stages(space: SearchSpace, genotype: Genotype) -> tuple[StripStage, ...]:
    """Runs of positions with one shape. The stem is taken to keep the resolution unless it says its stride."""
    stride = dict(space.stem.params).get("stride", 1)
    size = max(space.resolution_of(genotype) // (stride if isinstance(stride, int) else 1), 1)
    found: list[StripStage] = []
    for index, position in enumerate(space.positions):
        size = -(-size // position.stride)
        label = f"{size} × {size} px, {position.out_channels} ch"
        if found and found[-1].label == label:
            found[-1] = StripStage(first=found[-1].first, last=index, label=label)
        else:
            found.append(StripStage(first=index, last=index, label=label))
    return tuple(found)
