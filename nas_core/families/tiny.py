"""The tiny twin of NAS-Bench-Macro: 3 positions x 3 blocks for 8 x 8 images, trained in seconds on one core."""

from nas_core.families.nasbench_macro import BLOCKS
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace


def tiny(
    in_channels: int = 1,
    num_classes: int = 10,
    *,
    stem_channels: int = 8,
    head_channels: int = 64,
    resolution: int = 8,
) -> SearchSpace:
    """27 networks with the same blocks, stem and head as their large twin."""
    shapes = ((2, 2), (2, 1), (4, 2))  # width over the stem's, stride
    positions = [
        Position(name=f"block{index}", out_channels=factor * stem_channels, stride=stride, blocks=BLOCKS)
        for index, (factor, stride) in enumerate(shapes)
    ]
    return SearchSpace(
        name="tiny",
        in_channels=in_channels,
        resolutions=(resolution,),
        num_classes=num_classes,
        stem=BlockSpec.of("conv", out_channels=stem_channels, kernel=3),
        head=BlockSpec.of("conv-pool-linear", channels=head_channels),
        positions=tuple(positions),
    )
