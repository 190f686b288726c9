"""CONTRIBUTING's promise: a scorer, a block kind, ... of our own is one file; nothing else is touched to add it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
FILES = {
    ("scorer", "counting"): (
        "scoring/counting.py",
        "from nas_core.scoring.scorer import SCORERS, Scorer\n\n\n@SCORERS.add\nclass Counting(Scorer):\n"
        '    """Counts."""\n\n    name = "counting"\n    needs_torch = needs_data = False\n\n'
        "    def evaluate(self, genotypes):\n"
        "        return [self.rows.ok(genotype, sum(genotype.choices), 0, 0.0) for genotype in genotypes]\n",
    ),
    ("block kind", "noisy"): (
        "families/noisy.py",
        "from nas_core.families.blocks import BLOCKS, BlockKind\n\n\n@BLOCKS.add\nclass Noisy(BlockKind):\n"
        '    """A pool."""\n\n    name = "noisy"\n\n    def build(self, in_channels, out_channels, stride):\n'
        "        from torch import nn\n\n        return nn.Conv2d(in_channels, out_channels, 3, stride, 1)\n",
    ),
    ("family", "pair"): (
        "families/pair.py",
        "from nas_core import FAMILIES, Chain\n"
        "from nas_core.space.genotypes import BlockSpec, Position, SearchSpace\n\n\n@FAMILIES.add\nclass Pair(Chain):\n"
        '    """Two networks."""\n\n    name = "pair"\n\n    def chain(self):\n'
        '        blocks = (BlockSpec.of("conv"), BlockSpec.of("identity"))\n'
        '        position = Position(name="only", out_channels=8, blocks=blocks)\n'
        '        ends = {"stem": BlockSpec.of("conv", out_channels=8), "head": BlockSpec.of("pool-linear")}\n'
        "        shape = {'in_channels': self.in_channels, 'resolutions': (16,), 'num_classes': 3}\n"
        "        return SearchSpace(name=self.name, positions=(position,), **ends, **shape)\n",
    ),
    ("workload", "halves"): (
        "workloads/halves.py",
        "from nas_core.workloads.datasets import DatasetWorkload\n"
        "from nas_core.workloads.regression import REGRESSION\n"
        "from nas_core.workloads.workload import WORKLOADS, Sample\n\n\n"
        "@WORKLOADS.add\nclass Halves(DatasetWorkload):\n"
        '    """Halves of numbers."""\n\n    name = "halves"\n    sample = Sample(shape=(1,), num_outputs=1)\n'
        "    measured = tuple(REGRESSION.values())\n"
        '    example = {"validation_examples": 8}\n\n'
        "    def datasets(self):\n        rows = [([float(n)], n / 2) for n in range(40)]\n"
        "        return rows[:30], rows[30:]\n\n"
        "    def loss(self, outputs, targets, label_smoothing=0.0):\n"
        "        return (outputs - targets).square().mean()\n",
    ),
    ("profiler", "constant"): (
        "costs/constant.py",
        "from nas_core.costs.function_resource import FunctionProfiler\nfrom nas_core.costs.profiler import PROFILERS\n"
        "from nas_core.records.resources import Resource\n\n\n@PROFILERS.add\nclass Constant(FunctionProfiler):\n"
        '    """One for every block."""\n\n    name = "constant"\n'
        '    resources = (Resource(name="ones", unit="ones"),)\n'
        '    function = staticmethod(lambda choice: 1.0)\n    wanted = ("choice",)\n    fixed = 0.0\n',
    ),
    ("searcher", "lazy"): (
        "searchers/lazy.py",
        "from nas_core.searchers.searcher import SEARCHERS, Searcher\n\n\n@SEARCHERS.add\nclass Lazy(Searcher):\n"
        '    """Names nothing."""\n\n    name = "lazy"\n\n    def next(self, known, number):\n        return []\n',
    ),
}
CHECK = (
    "import json, sys, nas_core.study.config\nfrom nas_core.testing import check\n"
    "kind, name = sys.argv[1:]\n"
    "print(json.dumps([str(failure) for failure in check(kind, name)]))\n"
    "config = {'scorer': 'scorer', 'family': 'space', 'workload': 'data', 'searcher': 'searcher'}.get(kind)\n"
    "config and nas_core.study.config.parse_config({config: {'kind': name}}, 'test')\n"
)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of our tree with one more file of each kind."""
    place = tmp_path_factory.mktemp("tree")
    shutil.copytree(TREE / "nas_core", place / "nas_core", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.values():
        (place / "nas_core" / path).write_text(text)
    return place


@pytest.mark.parametrize(("kind", "name"), list(FILES))
def test_one_file_is_all_that_it_takes(copied, kind, name):
    command = [sys.executable, "-c", CHECK, kind, name]
    done = subprocess.run(command, cwd=copied, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_every_kind_has_its_row_in_the_guide():
    guide = (TREE / "CONTRIBUTING.md").read_text().split("## Adding things", 1)[1]
    for kind, _ in FILES:
        assert f"| {kind} |" in guide
