"""Kinds of blocks as data: what is allowed, and what the messages say."""

import subprocess
import sys

import pytest

from nas_core.base.errors import SpaceError
from nas_core.families.kinds import BLOCK_KINDS, HEAD_KINDS, STEM_KINDS, check_placed, check_space, resolved
from nas_core.families.tiny import tiny
from nas_core.space.genotypes import BlockSpec, PlacedBlock


def place(spec: BlockSpec, in_channels: int = 8, out_channels: int = 8, stride: int = 1) -> PlacedBlock:
    return PlacedBlock(block=spec, in_channels=in_channels, out_channels=out_channels, stride=stride)


def test_checking_needs_no_torch():
    code = "import nas_core.families.kinds, nas_core.families, nas_core.costs, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BlockSpec.of("mbcon"), r"mbconv"),
        (BlockSpec.of("mbconv", kernel=3, expansion=6), r"expansion.*one of: kernel, expand, se, gate, act"),
        (BlockSpec.of("mbconv", kernel=4), r"kernel: found 4, expected an odd integer from 1 to 31"),
        (BlockSpec.of("mbconv", kernel=33), r"from 1 to 31"),
        (BlockSpec.of("mbconv", kernel=3.0), r"odd integer"),
        (BlockSpec.of("mbconv", kernel=True), r"odd integer"),
        (BlockSpec.of("mbconv", expand="six"), r"expand: found 'six', expected a number"),
        (BlockSpec.of("mbconv", act="swish"), r"one of: relu, relu6"),
        (BlockSpec.of("identity", kernel=3), r"no parameters"),
        (BlockSpec.of("pool", mode="min"), r"one of: max, avg"),
    ],
)
def test_a_wrong_block_says_what_is_allowed(spec, message):
    with pytest.raises(SpaceError, match=message):
        resolved(BLOCK_KINDS, spec)


def test_a_required_parameter_is_asked_for():
    with pytest.raises(SpaceError, match=r"out_channels: found nothing.*requires it"):
        resolved(STEM_KINDS, BlockSpec.of("conv"))
    with pytest.raises(SpaceError, match="channels: found nothing"):
        resolved(HEAD_KINDS, BlockSpec.of("conv-pool-linear"))


def test_defaults_fill_what_is_not_given():
    values = resolved(BLOCK_KINDS, BlockSpec.of("mbconv", expand=6))
    assert values == {"kernel": 3, "expand": 6.0, "se": 0.0, "gate": "sigmoid", "act": "relu"}


@pytest.mark.parametrize(
    ("placed", "message"),
    [
        (place(BlockSpec.of("absent"), stride=2), "keeps channels and size"),
        (place(BlockSpec.of("absent"), out_channels=16), "keeps channels and size"),
        (place(BlockSpec.of("bottleneck"), out_channels=6), "divisible by 4"),
        (place(BlockSpec.of("convnext"), out_channels=12), "multiple of the channels"),
        (place(BlockSpec.of("conv"), stride=3), "stride: found 3, expected one of: 1, 2"),
    ],
)
def test_a_block_that_cannot_stand_where_it_is_says_why(placed, message):
    with pytest.raises(SpaceError, match=message):
        check_placed(placed)


def test_a_space_is_checked_block_by_block():
    from dataclasses import replace

    space = tiny()
    wrong = replace(space.positions[2], blocks=(*space.positions[2].blocks, BlockSpec.of("absent")))
    with pytest.raises(SpaceError, match=r"space tiny: positions\[2\]\.blocks\[3\]"):
        check_space(replace(space, positions=(*space.positions[:2], wrong)))
    with pytest.raises(SpaceError, match="num_classes: found 0"):
        check_space(replace(space, num_classes=0))
