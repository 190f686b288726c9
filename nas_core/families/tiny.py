"""The tiny twin of NAS-Bench-Macro: 3 positions x 3 blocks for 8 x 8 images, trained in seconds on one core."""

from pydantic import Field

from nas_core.base.settings import Section
from nas_core.families.chain_family import Chain
from nas_core.families.family import FAMILIES
from nas_core.families.nasbench_macro import BLOCKS
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace
from nas_core.workloads.workload import Sample

SHAPES = ((2, 2), (2, 1), (4, 2))  # width over the stem's, stride


@FAMILIES.add
class Tiny(Chain):
    """27 networks for tests, with the same blocks, stem and head as their large twin."""

    name = "tiny"
    default_sample = Sample(shape=(1, 8, 8), num_outputs=10)

    class Settings(Section):
        stem_channels: int = Field(8, ge=1, le=4096, description="Width of the stem.")
        head_channels: int = Field(64, ge=1, le=65_536, description="Width before the pool.")
        resolution: int = Field(8, ge=1, le=4096, description="Side of the images, pixels.")

    def chain(self) -> SearchSpace:
        given = self.settings
        positions = [
            Position(name=f"block{index}", out_channels=factor * given.stem_channels, stride=stride, blocks=BLOCKS)
            for index, (factor, stride) in enumerate(SHAPES)
        ]
        stem = BlockSpec.of("conv", out_channels=given.stem_channels, kernel=3)
        head = BlockSpec.of("conv-pool-linear", channels=given.head_channels)
        return self.between(stem, head, positions, [given.resolution])
