"""The kinds of blocks, stems and heads and the parameters each takes, as data: no torch here.

Configuration and YAML spaces are checked against these before any compute is
spent; ``nas_core.families.assemble`` builds modules from the same tables, so
both sides agree on names, defaults and ranges.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nas_core.base.errors import SpaceError
from nas_core.base.names import Names
from nas_core.space.genotypes import ABSENT, BlockSpec, PlacedBlock, Scalar, SearchSpace

ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "gelu")
STRIDES = (1, 2)  # of a position; every kind then maps a side of H pixels to ceil(H / stride)


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter: its type, range and default; no default means that it is required.

    ``odd`` is for kernels: an even one would not keep the image's size.
    """

    type: type[int] | type[float] | type[str] | type[bool]
    default: Scalar | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    odd: bool = False

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        if self.choices:
            return f"one of: {', '.join(self.choices)}"
        noun = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}[self.type]
        noun = "an odd integer" if self.odd else noun
        return noun if self.minimum is None else f"{noun} from {self.minimum:g} to {self.maximum:g}"

    def allows(self, value: object) -> bool:
        if self.type is bool:
            return isinstance(value, bool)
        if self.type is str:
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, int if self.type is int else (int, float)):
            return False
        in_range = self.minimum is None or self.maximum is None or self.minimum <= value <= self.maximum
        return in_range and (not self.odd or value % 2 == 1)


def _fits_anywhere(_: PlacedBlock) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of block, stem or head: what it is, its parameters, and where it cannot stand.

    ``misfit`` says what a placed block would need to fit its position, or nothing if it fits.
    """

    summary: str
    params: Mapping[str, Param] = field(default_factory=dict)
    misfit: Callable[[PlacedBlock], str] = _fits_anywhere


def _kernel(default: int = 3) -> Param:
    return Param(type=int, default=default, minimum=1, maximum=31, odd=True)


def _channels(default: int | None = None, minimum: int = 1) -> Param:
    return Param(type=int, default=default, minimum=minimum, maximum=65_536)


def _act(default: str = "relu") -> Param:
    return Param(type=str, default=default, choices=ACTIVATIONS)


_SQUEEZE = Param(type=float, default=0.0, minimum=0.0, maximum=1.0)  # share of channels kept; 0 is none
_GATE = Param(type=str, default="sigmoid", choices=("sigmoid", "hard_sigmoid"))
_EXPAND = Param(type=float, default=4.0, minimum=0.125, maximum=64.0)
_DROPOUT = Param(type=float, default=0.0, minimum=0.0, maximum=0.99)


def _absent_misfit(placed: PlacedBlock) -> str:
    keeps = placed.stride == 1 and placed.in_channels == placed.out_channels
    return "" if keeps else "a position that keeps channels and size (there is nothing to change them)"


def _bottleneck_misfit(placed: PlacedBlock) -> str:
    return "" if placed.out_channels % 4 == 0 else "out_channels divisible by 4"


def _convnext_misfit(placed: PlacedBlock) -> str:
    fits = placed.out_channels % placed.in_channels == 0
    return "" if fits else "out_channels that are a multiple of the channels that come in (depthwise convolution)"


BLOCK_KINDS = Names[Kind]("block kind")
STEM_KINDS = Names[Kind]("stem kind")
HEAD_KINDS = Names[Kind]("head kind")

BLOCK_KINDS.add("identity")(Kind(summary="nothing; a 1x1 strided convolution and BN where the shape changes"))
BLOCK_KINDS.add(ABSENT)(Kind(summary="no block at all: optional depth", misfit=_absent_misfit))
BLOCK_KINDS.add("mbconv")(
    Kind(
        summary="inverted residual (MobileNetV2/V3): expand, depthwise, project",
        params={"kernel": _kernel(), "expand": _EXPAND, "se": _SQUEEZE, "gate": _GATE, "act": _act()},
    )
)
BLOCK_KINDS.add("fused-mbconv")(
    Kind(
        summary="inverted residual whose expansion and depthwise convolution are one full convolution",
        params={"kernel": _kernel(), "expand": _EXPAND, "se": _SQUEEZE, "gate": _GATE, "act": _act()},
    )
)
BLOCK_KINDS.add("separable")(
    Kind(
        summary="depthwise-separable convolution (MobileNetV1) with a shortcut where shapes agree",
        params={"kernel": _kernel(), "se": _SQUEEZE, "gate": _GATE, "act": _act()},
    )
)
BLOCK_KINDS.add("conv")(
    Kind(summary="convolution, BN, activation; no shortcut", params={"kernel": _kernel(), "act": _act()})
)
BLOCK_KINDS.add("basic")(
    Kind(
        summary="ResNet basic block: two 3x3 convolutions around a shortcut",
        params={"reduce": Param(type=int, default=1, minimum=1, maximum=16), "act": _act()},
    )
)
BLOCK_KINDS.add("bottleneck")(
    Kind(
        summary="ResNet bottleneck: 1x1, 3x3, 1x1 around a shortcut; `ratio` is inner over outer width",
        params={"ratio": Param(type=float, default=0.25, minimum=0.03125, maximum=4.0), "act": _act()},
        misfit=_bottleneck_misfit,
    )
)
BLOCK_KINDS.add("pool")(
    Kind(
        summary="pooling, with a 1x1 convolution and BN where the channels change",
        params={"kernel": _kernel(), "mode": Param(type=str, default="max", choices=("max", "avg"))},
    )
)
BLOCK_KINDS.add("convnext")(
    Kind(
        summary="ConvNeXt block: depthwise convolution, layer norm, inverted MLP; `layer_scale` 0 is none",
        params={
            "kernel": _kernel(7),
            "expand": _EXPAND,
            "layer_scale": Param(type=float, default=0.0, minimum=0.0, maximum=1.0),
        },
        misfit=_convnext_misfit,
    )
)

STEM_KINDS.add("conv")(
    Kind(
        summary="convolution, BN, activation",
        params={
            "out_channels": _channels(),
            "kernel": _kernel(),
            "stride": Param(type=int, default=1, minimum=1, maximum=8),
            "act": _act(),
        },
    )
)
STEM_KINDS.add("conv-pool")(
    Kind(
        summary="ResNet's: convolution with stride 2, BN, activation, 3x3 max pooling with stride 2",
        params={"out_channels": _channels(), "kernel": _kernel(7), "act": _act()},
    )
)
STEM_KINDS.add("patchify")(
    Kind(
        summary="ConvNeXt's: convolution over patches that do not overlap, layer norm",
        params={"out_channels": _channels(), "patch": Param(type=int, default=4, minimum=1, maximum=64)},
    )
)

HEAD_KINDS.add("conv-pool-linear")(
    Kind(
        summary="1x1 convolution, BN, activation, global average pool, an optional hidden layer, linear",
        params={
            "channels": _channels(),
            "hidden": _channels(0, minimum=0),
            "act": _act(),
            "dropout": _DROPOUT,
        },
    )
)
HEAD_KINDS.add("pool-linear")(Kind(summary="global average pool, linear", params={"dropout": _DROPOUT}))


def resolved(kinds: Names[Kind], spec: BlockSpec, where: str = "") -> dict[str, Scalar]:
    """Every parameter of the spec's kind, as given or by default.

    ``where`` leads the error messages: the position, or the place in a file.

    Raises:
        SpaceError: for an unknown kind, or an unknown, missing or impossible parameter.
    """
    where = where or f"{kinds.noun} {spec.kind}"
    if spec.kind not in kinds:
        raise SpaceError(f"{where}.kind", repr(spec.kind), f"one of: {', '.join(kinds)}")
    schema, given = kinds[spec.kind].params, dict(spec.params)
    for name, value in given.items():
        if name not in schema:
            allowed = ", ".join(schema) or "no parameters"
            raise SpaceError(f"{where}.{name}", f"{value!r} ({spec.kind} does not know it)", f"one of: {allowed}")
        if not schema[name].allows(value):
            raise SpaceError(f"{where}.{name}", repr(value), schema[name].expected)
    values: dict[str, Scalar] = {}
    for name, param in schema.items():
        found = given.get(name, param.default)
        if found is None:
            raise SpaceError(f"{where}.{name}", "nothing", f"{param.expected} ({spec.kind} requires it)")
        values[name] = param.type(found)
    return values


def check_placed(placed: PlacedBlock, where: str = "") -> dict[str, Scalar]:
    """The block's parameters, if it can stand where it is placed; raises SpaceError if it cannot."""
    where = where or f"block {placed.block}"
    values = resolved(BLOCK_KINDS, placed.block, where)
    if placed.stride not in STRIDES:
        raise SpaceError(f"{where}.stride", placed.stride, f"one of: {', '.join(map(str, STRIDES))}")
    if min(placed.in_channels, placed.out_channels) < 1:
        raise SpaceError(f"{where}.out_channels", placed.out_channels, "1 or more")
    if misfit := BLOCK_KINDS[placed.block.kind].misfit(placed):
        shape = f"{placed.in_channels} to {placed.out_channels} channels with stride {placed.stride}"
        raise SpaceError(where, f"{placed.block.kind} from {shape}", misfit)
    return values


def check_space(space: SearchSpace, source: str = "") -> SearchSpace:
    """The space itself, if every stem, block and head of it can be built.

    Raises:
        SpaceError: with the position and block that cannot.
    """
    source = source or f"space {space.name}"
    for name, value in (("in_channels", space.in_channels), ("num_classes", space.num_classes)):
        if value < 1:
            raise SpaceError(f"{source}: {name}", value, "1 or more")
    if min(space.resolutions) < 1:
        raise SpaceError(f"{source}: resolutions", space.resolutions, "pixels, 1 or more")
    in_channels = int(resolved(STEM_KINDS, space.stem, f"{source}: stem")["out_channels"])
    for index, position in enumerate(space.positions):
        for choice, block in enumerate(position.blocks):
            placed = PlacedBlock(
                block=block, in_channels=in_channels, out_channels=position.out_channels, stride=position.stride
            )
            check_placed(placed, f"{source}: positions[{index}].blocks[{choice}]")
        in_channels = position.out_channels
    resolved(HEAD_KINDS, space.head, f"{source}: head")
    return space
