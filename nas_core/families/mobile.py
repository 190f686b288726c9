"""A MobileNetV3 family as in Once-for-All (Cai et al., ICLR 2020): ragged, with optional depth, several resolutions.

Five stages of two to four inverted residuals, each with kernel 3, 5 or 7 and
expansion 3, 4 or 6; the third and fourth block of a stage may be absent, the
fourth only with the third (MathNAS Eq. 9). A fixed separable block comes first.
"""

from dataclasses import dataclass
from itertools import product

from nas_core.base.errors import SpaceError
from nas_core.space.genotypes import ABSENT, BlockId, BlockSpec, Position, Rule, Scalar, SearchSpace, absent_to_end

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
MIN_DEPTH, MAX_DEPTH = 2, 4


@dataclass(frozen=True)
class Stage:
    channels: int
    stride: int
    se: float
    act: str


STAGES = (
    Stage(24, 2, 0.0, "relu"),
    Stage(40, 2, 0.25, "relu"),
    Stage(80, 2, 0.0, "hard_swish"),
    Stage(112, 1, 0.25, "hard_swish"),
    Stage(160, 2, 0.25, "hard_swish"),
)


def mobile(
    in_channels: int = 3,
    num_classes: int = 1000,
    *,
    width: float = 1.0,
    resolutions: str = "128,160,192,224",
) -> SearchSpace:
    """21 positions with 1, 9 or 10 choices; ``width`` multiplies all channels, ``resolutions`` are pixels.

    Raises:
        SpaceError: for a width or a resolution that is not positive, or is no number.
    """
    if not width > 0:
        raise SpaceError("space mobile.width", width, "more than 0")
    first = Position(
        name="first",
        out_channels=_scaled(16, width),
        stride=1,
        blocks=(BlockSpec.of("separable", kernel=3, act="relu"),),
    )
    positions, rules = [first], list[Rule]()
    for number, stage in enumerate(STAGES, start=1):
        start = len(positions)
        positions += [_position(number, stage, index, width) for index in range(MAX_DEPTH)]
        rules += absent_to_end([_last_choice(positions, start + index) for index in range(MIN_DEPTH, MAX_DEPTH)])
    return SearchSpace(
        name="mobile",
        in_channels=in_channels,
        resolutions=_sizes(resolutions),
        num_classes=num_classes,
        stem=BlockSpec.of("conv", out_channels=_scaled(16, width), kernel=3, stride=2, act="hard_swish"),
        head=BlockSpec.of(
            "conv-pool-linear", channels=_scaled(960, width), hidden=_scaled(1280, width), act="hard_swish"
        ),
        positions=tuple(positions),
        rules=tuple(rules),
    )


def _position(number: int, stage: Stage, index: int, width: float) -> Position:
    extra: dict[str, Scalar] = {"se": stage.se, "gate": "hard_sigmoid"} if stage.se else {}
    blocks = [
        BlockSpec.of("mbconv", kernel=kernel, expand=expand, act=stage.act, **extra)
        for kernel, expand in product(KERNELS, EXPANSIONS)
    ]
    optional = [BlockSpec.of(ABSENT)] if index >= MIN_DEPTH else []
    return Position(
        name=f"stage{number}.{index}",
        out_channels=_scaled(stage.channels, width),
        stride=stage.stride if index == 0 else 1,
        blocks=(*blocks, *optional),
    )


def _last_choice(positions: list[Position], position: int) -> BlockId:
    return position, len(positions[position].blocks) - 1


def _scaled(channels: int, width: float) -> int:
    """Channels times width, to the nearest multiple of 8, 8 at least."""
    return max(8, round(channels * width / 8) * 8)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise SpaceError("space mobile.resolutions", repr(text), "sizes such as '160,192,224'") from None
