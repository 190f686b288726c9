"""A ResNet family: four stages of basic blocks and bottlenecks of several widths, with optional depth."""

from nas_core.space.genotypes import ABSENT, BlockSpec, Position, Rule, SearchSpace, absent_to_end

BLOCKS = (
    BlockSpec.of("basic"),
    BlockSpec.of("basic", reduce=2),
    BlockSpec.of("bottleneck", ratio=0.25),
    BlockSpec.of("bottleneck", ratio=0.5),
)
MIN_DEPTH = 1  # of a stage; the block that changes the shape is always there


def resnet(
    in_channels: int = 3,
    num_classes: int = 10,
    *,
    stem_channels: int = 64,
    stages: int = 3,
    depth: int = 3,
    resolution: int = 32,
) -> SearchSpace:
    """``stages`` x ``depth`` positions for small images.

    Channels double and the image halves at each stage but the first. Every
    block but a stage's first may be absent, and is then absent to the stage's end.
    """
    positions, rules = list[Position](), list[Rule]()
    for stage in range(stages):
        for index in range(depth):
            optional = (BlockSpec.of(ABSENT),) if index >= MIN_DEPTH else ()
            positions.append(
                Position(
                    name=f"stage{stage + 1}.{index}",
                    out_channels=stem_channels * 2**stage,
                    stride=2 if stage and index == 0 else 1,
                    blocks=(*BLOCKS, *optional),
                )
            )
        tail = range(stage * depth + MIN_DEPTH, (stage + 1) * depth)
        rules += absent_to_end([(position, len(BLOCKS)) for position in tail])
    return SearchSpace(
        name="resnet",
        in_channels=in_channels,
        resolutions=(resolution,),
        num_classes=num_classes,
        stem=BlockSpec.of("conv", out_channels=stem_channels, kernel=3),
        head=BlockSpec.of("pool-linear"),
        positions=tuple(positions),
        rules=tuple(rules),
    )
