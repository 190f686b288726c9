"""A slow, obvious evaluator: builds the list of layers and counts them one by one.

Written without the closed forms; ``test_formulas.py`` compares the two.
"""

import math
from dataclasses import dataclass

from nas_core.deepmad.structure import Structure


@dataclass(frozen=True)
class Layer:
    """A convolution with BatchNorm at its output; ``main`` layers count for entropy and depth."""

    c: int
    o: int
    k: int
    groups: int
    side: int  # of the output
    acts: int  # activations (or sums, after a projection) per output element
    main: bool = True
    counted: bool = True  # in the FLOPs


@dataclass(frozen=True)
class Network:
    layers: list[Layer]
    pooled: int  # elements read by shortcut pooling
    stage_ends: list[tuple[int, int, bool]]  # (main layers so far, channels, whether an SE came before)


def network(structure: Structure) -> Network:
    """Every layer of the structure, stem to head."""
    side = structure.skeleton.resolution // 2
    resnet = structure.skeleton.family == "resnet"
    layers = [Layer(structure.skeleton.image_channels, structure.stem, 3, 1, side, 1)]
    ends: list[tuple[int, int, bool]] = []
    pooled, c, seen_se = 0, structure.stem, False
    for block in structure.blocks:
        if block.stride == 2:
            ends.append((sum(layer.main for layer in layers), c, seen_se))
        for n in range(block.depth):
            stride = block.stride if n == 0 else 1
            b, o, k = block.bottleneck, block.out, block.kernel
            layers.append(Layer(c, b, 1, 1, side, 1))
            shortcut = resnet or c == o
            if stride == 2 and shortcut:
                pooled += c * side * side
            side //= stride
            layers.append(Layer(b, b, k, 1 if resnet else b, side, 1))
            if not resnet:
                q = max(1, round(b * 0.25) // 8) * 8
                layers.append(Layer(b, q, 1, 1, 1, 1, main=False, counted=False))
                layers.append(Layer(q, b, 1, 1, 1, 1, main=False, counted=False))
                seen_se = True
            layers.append(Layer(b, o, 1, 1, side, 1))
            if resnet and n == 0:
                layers.append(Layer(c, o, 1, 1, side, 1, main=False))
            c = o
    if structure.skeleton.head is not None:
        layers.append(Layer(c, structure.skeleton.head, 1, 1, side, 1))
        c = structure.skeleton.head
    ends.append((sum(layer.main for layer in layers), c, seen_se))
    return Network(layers, pooled, ends)


def params(structure: Structure) -> int:
    return sum(x.c * x.o * x.k**2 // x.groups + 2 * x.o for x in network(structure).layers)


def flops(structure: Structure) -> int:
    net = network(structure)
    counted = [x for x in net.layers if x.counted]
    return net.pooled + sum(x.side**2 * (x.c * x.o * x.k**2 // x.groups + (2 + x.acts) * x.o) for x in counted)


def widths(structure: Structure) -> list[int]:
    return [x.c * x.k**2 // x.groups for x in network(structure).layers if x.main]


def rho(structure: Structure) -> float:
    w = widths(structure)
    found = []
    for depth, _, _ in network(structure).stage_ends:
        mean = math.exp(math.fsum(math.log(value) for value in w[:depth]) / depth)
        found.append(depth / mean)
    return max(found)


def score(structure: Structure, objective: str) -> float:
    """tinynas: at 224 pixels, R = 1 once an SE block came, exp(std), the ResNet family's first two depths left out."""
    w, net = widths(structure), network(structure)
    side = 224 if objective == "tinynas" else structure.skeleton.resolution
    total = 0.0
    for t, (depth, channels, seen_se) in enumerate(net.stage_ends):
        side //= 2
        entropy = math.fsum(0.5 * math.log(value) for value in w[:depth])
        height = math.log(channels) + (0.0 if seen_se and objective == "tinynas" else 2 * math.log(side))
        total += (8 if t == len(net.stage_ends) - 1 else 1) * height * entropy
    depths = [block.depth for block in structure.blocks]
    if objective == "tinynas" and structure.skeleton.family == "resnet":
        depths = depths[2:]
    mean = sum(depths) / len(depths)
    var = sum((d - mean) ** 2 for d in depths) / len(depths)
    return total - 10 * math.exp(math.sqrt(var) if objective == "tinynas" else var)
