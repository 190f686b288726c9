"""A ResNet family: four stages of basic blocks and bottlenecks of several widths, with optional depth."""

from pydantic import Field

from nas_core.base.settings import Section
from nas_core.families.chain_family import Chain
from nas_core.families.family import FAMILIES
from nas_core.space.genotypes import ABSENT, BlockSpec, Position, SearchSpace
from nas_core.space.rules import Rule, absent_to_end

BLOCKS = (
    BlockSpec.of("basic"),
    BlockSpec.of("basic", reduce=2),
    BlockSpec.of("bottleneck", ratio=0.25),
    BlockSpec.of("bottleneck", ratio=0.5),
)
MIN_DEPTH = 1  # of a stage; the block that changes the shape is always there


@FAMILIES.add
class ResNet(Chain):
    """Stages of basic blocks and bottlenecks of several widths for small images, with optional depth.

    Channels double and the image halves at each stage but the first. Every
    block but a stage's first may be absent, and is then absent to the stage's end.
    """

    name = "resnet"

    class Settings(Section):
        stem_channels: int = Field(64, ge=1, le=4096, description="Width of the first stage.")
        stages: int = Field(3, ge=1, le=8, description="Stages.")
        depth: int = Field(3, ge=1, le=1000, description="Positions per stage.")
        resolution: int = Field(32, ge=1, le=4096, description="Side of the images, pixels.")

    def chain(self) -> SearchSpace:
        given = self.settings
        positions, rules = list[Position](), list[Rule]()
        for stage in range(given.stages):
            positions += [self._position(stage, index) for index in range(given.depth)]
            tail = range(stage * given.depth + MIN_DEPTH, (stage + 1) * given.depth)
            rules += absent_to_end([(position, len(BLOCKS)) for position in tail])
        stem = BlockSpec.of("conv", out_channels=given.stem_channels, kernel=3)
        return self.between(stem, BlockSpec.of("pool-linear"), positions, [given.resolution], rules)

    def _position(self, stage: int, index: int) -> Position:
        optional = (BlockSpec.of(ABSENT),) if index >= MIN_DEPTH else ()
        return Position(
            name=f"stage{stage + 1}.{index}",
            out_channels=self.settings.stem_channels * 2**stage,
            stride=2 if stage and index == 0 else 1,
            blocks=(*BLOCKS, *optional),
        )
