"""Random structures for the tests, and the golden file's making.

``python -m tests.nas_core.deepmad.structures`` writes
``tests/golden/deepmad_random.json``: 1,000 random structures with the values
of the plain evaluator.
"""

import json
import random
from pathlib import Path

from nas_core.deepmad.structure import Skeleton, Structure, SuperBlock
from tests.nas_core.deepmad import plain

GOLDEN = Path(__file__).parents[2] / "golden" / "deepmad_random.json"
STRIDES = {
    "resnet": [(2, 2, 2, 1, 2), (2, 2, 1, 2, 2)],
    "mobilenet": [(2, 2, 2, 2, 1), (1, 2, 2, 2, 2), (2, 2, 2, 1, 2)],
}


def random_structure(rng: random.Random) -> Structure:
    family = rng.choice(["resnet", "mobilenet"])
    skeleton = Skeleton(
        family=family,
        resolution=rng.choice([224, 224, 288, 160]),
        strides=rng.choice(STRIDES[family]),
        head=None if family == "resnet" else rng.choice([1280, 1792]),
    )
    stem = 8 * rng.randint(1, 8)
    blocks, c = [], stem
    for stride in skeleton.strides:
        out = rng.choice([c, 8 * rng.randint(1, 120)])
        bottleneck = 8 * rng.randint(1, max(1, out // 8)) if family == "resnet" else 8 * rng.randint(2, 200)
        kernel = rng.choice([3, 5, 7])
        blocks.append(SuperBlock(out=out, bottleneck=bottleneck, kernel=kernel, depth=rng.randint(1, 9), stride=stride))
        c = out
    return Structure(skeleton=skeleton, stem=stem, blocks=tuple(blocks))


def as_list(structure: Structure) -> list[object]:
    s = structure.skeleton
    blocks = [[b.out, b.bottleneck, b.kernel, b.depth, b.stride] for b in structure.blocks]
    return [s.family, s.resolution, s.head, structure.stem, blocks]


def from_list(row: list) -> Structure:  # type: ignore[type-arg]
    family, resolution, head, stem, rows = row
    blocks = tuple(SuperBlock(out=o, bottleneck=b, kernel=k, depth=n, stride=s) for o, b, k, n, s in rows)
    skeleton = Skeleton(family=family, resolution=resolution, head=head, strides=tuple(b.stride for b in blocks))
    return Structure(skeleton=skeleton, stem=stem, blocks=blocks)


def main() -> None:
    rng = random.Random(0)
    rows = []
    for _ in range(1000):
        structure = random_structure(rng)
        exact = [plain.flops(structure), plain.params(structure)]
        real = [plain.rho(structure), plain.score(structure, "tinynas"), plain.score(structure, "paper")]
        rows.append([*as_list(structure), *exact, *real])
    command = "python -m tests.nas_core.deepmad.structures"
    fields = ["family", "resolution", "head", "stem", "blocks", "flops", "params", "rho", "tinynas", "paper"]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    header = json.dumps({"command": command, "fields": fields})[:-1]
    GOLDEN.write_text(f'{header}, "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
