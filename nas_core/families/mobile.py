"""A MobileNetV3 family as in Once-for-All (Cai et al., ICLR 2020): ragged, with optional depth, several resolutions.

Five stages of two to four inverted residuals, each with kernel 3, 5 or 7 and
expansion 3, 4 or 6; the third and fourth block of a stage may be absent, the
fourth only with the third (MathNAS Eq. 9). A fixed separable block comes first.
"""

from dataclasses import dataclass
from itertools import product

from pydantic import Field

from nas_core.base.errors import SpaceError
from nas_core.base.settings import Section
from nas_core.families.chain_family import Chain
from nas_core.families.family import FAMILIES
from nas_core.space.genotypes import ABSENT, BlockSpec, Position, Scalar, SearchSpace
from nas_core.space.rules import BlockId, Rule, absent_to_end
from nas_core.workloads.workload import Sample

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


@FAMILIES.add
class Mobile(Chain):
    """Mobile inverted residuals, as in Once-for-All: 21 positions, ragged, optional depth, four resolutions."""

    name = "mobile"
    default_sample = Sample(shape=(3, 224, 224), num_outputs=1000)

    class Settings(Section):
        width: float = Field(1.0, gt=0, le=100, description="Multiplies all channels.")
        resolutions: str = Field("128,160,192,224", description="Sides of the images, pixels, separated by commas.")

    def chain(self) -> SearchSpace:
        width = self.settings.width
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
        stem = BlockSpec.of("conv", out_channels=_scaled(16, width), kernel=3, stride=2, act="hard_swish")
        widths = {"channels": _scaled(960, width), "hidden": _scaled(1280, width)}
        head = BlockSpec.of("conv-pool-linear", **widths, act="hard_swish")
        return self.between(stem, head, positions, _sizes(self.settings.resolutions), rules)


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
