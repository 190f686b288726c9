"""What a user brings, broken: plug-in files that a study names, settings of everything registered, metrics."""

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nas_core.base.errors import NasError
from nas_core.base.plugins import imported
from nas_core.base.registry import Registry
from nas_core.costs import PROFILERS
from nas_core.families import BLOCKS, FAMILIES, HEADS, STEMS
from nas_core.scoring import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.study.brought import family_of, scorer_of, searcher_of, space_of, trained_metric
from nas_core.study.config import StudyConfig, load_config
from nas_core.workloads import WORKLOADS
from tests.fuzz.mutations import ODD_VALUES, mutate, mutate_bytes
from tests.spaces import build_space

EXAMPLE_SPACE = Path(__file__).parents[2] / "flows/configs/space-example.yaml"
HEAD = "from typing import Annotated\nfrom nas_core import Searcher, Section, SEARCHERS, scorer\n"
SCORER = (
    HEAD
    + '''
@scorer("own", metrics={"bytes": "lower", "speed": "higher"})
def own(blocks, *, weight: Annotated[float, "Weight of the second block."] = 1.0):
    """Rates networks by what is written of their blocks."""
    return {"bytes": weight * len(str(blocks)), "speed": 1 / len(str(blocks))}
'''
)
SEARCHER = (
    HEAD
    + '''
@SEARCHERS.add
class Own(Searcher):
    """The first networks."""

    name = "own"
    version = 1

    class Settings(Section):
        pass

    def next(self, known, number):
        return []
'''
)
TEMPLATES = [SCORER, SEARCHER]
# what hands do to such a file: nothing, a mistake that Python sees, or one that only the registry sees
MISTAKES = [
    ("", ""),
    ("", ""),
    ("def ", "de "),
    ("import ", "import nowhere_at_all\nimport "),
    ("\n@", "\nraise SystemExit(3)\n@"),
    ("\n@", "\nraise KeyError('x')\n@"),
    ("\n@", "\n1 / 0\n@"),
    ("\n@", "\nfrom . import other\n@"),
    ("own", "train"),
    ("own", "random"),
    ('"own"', "''"),
    ('"own"', "None"),
    ('"own"', "['x']"),
    ('    """', "    #"),
    ("blocks,", "bloks,"),
    ('Annotated[float, "Weight of the second block."]', "float"),
    ("weight:", "weight: 'Nothing' ="),
    ("= 1.0", ""),
    ("(Searcher)", ""),
    ("(Searcher)", "(Section)"),
    ("version = 1", "version = '1'"),
    ("pass", "depth: int"),
    ("pass", "kind: int = 3"),
    ("def next", "def nxt"),
    ("lower", "down"),
    ("return {", "return [] and {"),
    ("return {", "raise RuntimeError\n    return {"),
    ('"bytes": weight', '"bytes": float("nan") * weight'),
]
NAMES = [*["own.py"] * 9, "other.py", "pack", "empty", "own.txt", "no.py", "bad name.py", "os", "nas_core", "json"]
METRICS = ["", "accuracy", "macro_f1", "bytes", "speed", "top5_accuracy", "accurancy", " ", "é", "0", "metric"]


def plugin(place: Path, rng: random.Random) -> None:
    """A study that names plug-in files: missing, broken, twice the same, or right."""
    for name in ("own.py", "other.py", "bad name.py", "own.txt", "pack/__init__.py"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(_source(rng))
    (place / "empty").mkdir()
    names = [f"./{rng.choice(NAMES)}" if rng.random() < 0.9 else rng.choice(NAMES) for _ in range(rng.randint(1, 2))]
    data: dict[str, Any] = {
        "plugins": names,
        "space": {"kind": "tiny"},
        "scorer": {"kind": "own", "weight": 2.0},
        "metric": rng.choice(["", "bytes", *METRICS]),
    }
    if rng.random() < 0.3:
        data |= {"scorer": {"kind": "train"}, "searcher": {"kind": "own"}, "metric": ""}
    if rng.random() < 0.3:
        mutate(data, rng)
    with _forgotten():
        config = load_config(_text(data), source="study.yaml", folder=place)
        _ask(config)


def _source(rng: random.Random) -> bytes:
    text = rng.choice(TEMPLATES).replace(*rng.choice(MISTAKES))
    return mutate_bytes(text.encode(), rng) if rng.random() < 0.1 else text.encode()


@contextmanager
def _forgotten() -> Iterator[None]:
    """What was imported meanwhile is unknown again, so that one case says nothing of the next."""
    try:
        yield
    finally:
        for known in list(imported.values()):
            for registry in Registry.all_of_them:
                registry.forget(known.origin)
        imported.clear()
        for name in [name for name in sys.modules if name.startswith("mathnas_plugin_")]:
            del sys.modules[name]


def settings(place: Path, rng: random.Random) -> None:
    """A study, or a space, with mutated settings of something that is registered."""
    registry = rng.choice([FAMILIES, FAMILIES, WORKLOADS, SCORERS, PROFILERS, SEARCHERS, BLOCKS, STEMS, HEADS])
    name = rng.choice(list(registry))
    section = _settings_of(registry, name)
    if section:
        mutate(section, rng)
    if registry in (BLOCKS, STEMS, HEADS):
        return _built(place, registry, {"kind": name, **section})
    if registry is PROFILERS:
        data = {"profile": {"profilers": {name: section}}}
    else:
        field = {FAMILIES: "space", WORKLOADS: "data", SCORERS: "scorer", SEARCHERS: "searcher"}[registry]
        data = {field: {"kind": name, **section}}
    return _ask(load_config(_text(data), source="study.yaml", folder=place))


def _settings_of(registry: Registry[Any], name: str) -> dict[str, Any]:
    thing = registry[name]
    example = dict(thing.example) or ({"file": str(EXAMPLE_SPACE)} if name == "yaml" else {})
    with suppress(ValueError):
        return thing.Settings.model_validate(example).model_dump(mode="json")
    return {"path": "table.csv"}  # of a table of known results, which lies nowhere


def _built(place: Path, registry: Registry[Any], block: dict[str, Any]) -> None:
    """A space that has the block at one of its places."""
    data = yaml.safe_load(EXAMPLE_SPACE.read_text())
    if registry is BLOCKS:
        data["positions"][0]["blocks"].append(block)
    else:
        data["stem" if registry is STEMS else "head"] = block
    path = place / "space.yaml"
    path.write_bytes(_text(data))
    build_space("yaml", file=str(path)).space_id  # noqa: B018


def metric(place: Path, rng: random.Random) -> None:
    """A study that names a metric, its own or another's."""
    data = {
        "metric": rng.choice([*METRICS, rng.choice(ODD_VALUES)]),
        "data": {"kind": rng.choice(list(WORKLOADS))},
        "scorer": {"kind": rng.choice(["train", "supernet"])},
    }
    _ask(load_config(_text(data), source="study.yaml", folder=place))


def _ask(config: StudyConfig) -> None:
    """What a run asks before it computes; a scorer that needs no training rates a network."""
    family = family_of(config)
    space = space_of(config, family)
    searcher_of(config)
    scorer = scorer_of(config, family, None)
    scorer.measure.name, scorer.scorer_id, space.space_id  # noqa: B018
    with suppress(NasError):  # of data without files, whose classes are not known
        trained_metric(config)
    if not scorer.needs_torch and not scorer.needs_data and scorer.name not in ("tabular", "train", "supernet"):
        row, *_others = scorer.evaluate([space.sample(np.random.default_rng(0))])
        assert row.status in ("ok", "failed")


def _text(data: Any) -> bytes:
    return yaml.safe_dump(json.loads(json.dumps(data, default=str)), allow_unicode=True).encode(
        "utf-8", "surrogatepass"
    )
