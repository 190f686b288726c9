"""NAS-Bench-Macro: 8 positions x 3 blocks = 6,561 networks for 32 x 32 images (Su et al., CVPR 2021).

Stem 3x3 convolution; three stages of 2, 3, 3 positions whose first halves the
image and doubles the channels; choices 0 identity, 1 MBConv k3 e3, 2 MBConv k5
e6. Its table of trained accuracies is public (xiusu/NAS-Bench-Macro,
``data/nas-bench-macro_cifar10.json``); parameters and multiply-adds counted
here equal that table's for every network.
"""

from pydantic import Field

from nas_core.base.settings import Section
from nas_core.families.chain_family import Chain
from nas_core.families.family import FAMILIES
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace

BLOCKS = (
    BlockSpec.of("identity"),
    BlockSpec.of("mbconv", kernel=3, expand=3),
    BlockSpec.of("mbconv", kernel=5, expand=6),
)
STAGE_DEPTHS = (2, 3, 3)


@FAMILIES.add
class NasBenchMacro(Chain):
    """NAS-Bench-Macro: 8 positions x 3 blocks; the defaults are the benchmark's own network."""

    name = "nasbench-macro"

    class Settings(Section):
        stem_channels: int = Field(32, ge=1, le=4096, description="Width, which doubles at every stage.")
        head_channels: int = Field(1280, ge=1, le=65_536, description="Width before the pool.")
        resolution: int = Field(32, ge=1, le=4096, description="Side of the images, pixels.")

    def chain(self) -> SearchSpace:
        given = self.settings
        positions = [
            Position(
                name=f"stage{stage + 1}.{index}",
                out_channels=given.stem_channels * 2 ** (stage + 1),
                stride=2 if index == 0 else 1,
                blocks=BLOCKS,
            )
            for stage, depth in enumerate(STAGE_DEPTHS)
            for index in range(depth)
        ]
        stem = BlockSpec.of("conv", out_channels=given.stem_channels, kernel=3)
        head = BlockSpec.of("conv-pool-linear", channels=given.head_channels)
        return self.between(stem, head, positions, [given.resolution])
