"""Families of networks, one file each, and the kinds of blocks they are made of. Nothing here imports torch."""

from nas_core.base.discovery import import_registered
from nas_core.families.blocks import BLOCKS, HEADS, STEMS, BlockKind, HeadKind, StemKind
from nas_core.families.chain_family import Chain
from nas_core.families.family import FAMILIES, Family, Part

import_registered(__name__)

__all__ = ["BLOCKS", "FAMILIES", "HEADS", "STEMS", "BlockKind", "Chain", "Family", "HeadKind", "Part", "StemKind"]
