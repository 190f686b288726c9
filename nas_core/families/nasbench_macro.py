"""NAS-Bench-Macro: 8 positions x 3 blocks = 6,561 networks for 32 x 32 images (Su et al., CVPR 2021).

Stem 3x3 convolution; three stages of 2, 3, 3 positions whose first halves the
image and doubles the channels; choices 0 identity, 1 MBConv k3 e3, 2 MBConv k5
e6. Its table of trained accuracies is public (xiusu/NAS-Bench-Macro,
``data/nas-bench-macro_cifar10.json``); parameters and multiply-adds counted
here equal that table's for every network.
"""

from nas_core.space.genotypes import BlockSpec, Position, SearchSpace

BLOCKS = (
    BlockSpec.of("identity"),
    BlockSpec.of("mbconv", kernel=3, expand=3),
    BlockSpec.of("mbconv", kernel=5, expand=6),
)
STAGE_DEPTHS = (2, 3, 3)


def nasbench_macro(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    stem_channels: int = 32,
    head_channels: int = 1280,
    resolution: int = 32,
) -> SearchSpace:
    """The 8 x 3 space; the defaults are the benchmark's own network.

    ``stem_channels`` is the width that doubles at every stage, ``head_channels``
    the width before the pool, ``resolution`` the side of the images in pixels.
    """
    positions = [
        Position(
            name=f"stage{stage + 1}.{index}",
            out_channels=stem_channels * 2 ** (stage + 1),
            stride=2 if index == 0 else 1,
            blocks=BLOCKS,
        )
        for stage, depth in enumerate(STAGE_DEPTHS)
        for index in range(depth)
    ]
    return SearchSpace(
        name="nasbench-macro",
        in_channels=in_channels,
        resolutions=(resolution,),
        num_classes=num_classes,
        stem=BlockSpec.of("conv", out_channels=stem_channels, kernel=3),
        head=BlockSpec.of("conv-pool-linear", channels=head_channels),
        positions=tuple(positions),
    )
