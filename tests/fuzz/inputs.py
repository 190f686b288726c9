"""What is mutated, and how it is read: as the command line and a study's stages read it."""

import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nas_core.costs import profile_blocks
from nas_core.program import parse_limit, read_problem, top_k
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.brought import family_of, scorer_of
from nas_core.study.config import StudyConfig, load_config, read_config
from nas_core.study.rounds import next_round, verification
from nas_core.study.study import Study
from tests.fuzz.brought import metric, plugin, settings
from tests.fuzz.mutations import ODD_VALUES, mutate, mutate_bytes
from tests.spaces import build_space

Case = Callable[[Path, random.Random], None]
CONFIGS = Path(__file__).parents[2] / "flows/configs"
STUDIES = [
    yaml.safe_load(path.read_text())
    for path in sorted(CONFIGS.glob("*.yaml"))
    if not path.stem.endswith("-example") and path.stem != "deepmad"
]
STUDIES.append(StudyConfig().model_dump(mode="json"))
SPACE = yaml.safe_load((CONFIGS / "space-example.yaml").read_text())
LIMITS = ["flops<=60%", "latency_ms<=12 ms", "params<=5 M", "flops=60%", "params >= 1e6", "activation_bytes<=2 MB"]
PROBLEM = {"score": [[0, 1, 2], [0, 3]], "costs": {"flops": [[1, 2, 9], [1, 2]]}, "budgets": ["flops <= 4"]}
LARGEST = 200_000  # networks of wider spaces are not built: that is work, not a check


def study_file(place: Path, rng: random.Random) -> None:
    """A study's YAML, mutated as data or as text, read as `mathnas run` reads it up to the space and the ids."""
    data = json.loads(json.dumps(rng.choice(STUDIES)))
    if rng.random() < 0.8:
        mutate(data, rng)
        text = yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    else:
        text = mutate_bytes(yaml.safe_dump(data).encode(), rng)
    config = load_config(text, source="study.yaml", folder=place)
    for limit in config.select.limits:
        parse_limit(limit)
    if config.space.kind != "yaml":
        scorer_of(config, family_of(config), None).scorer_id  # noqa: B018


def override(place: Path, rng: random.Random) -> None:
    """An override of the command line."""
    path = place / "study.yaml"
    path.write_text("name: tiny\nspace: {kind: tiny}\n")
    field = rng.choice(["seed", "name", "scorer.kind", "scorer.recipe.epochs", "select.limits", "x", "a.b.c", "..", ""])
    read_config(path, {field: str(rng.choice(ODD_VALUES))})


def space_file(place: Path, rng: random.Random) -> None:
    """A space's YAML, mutated; a space that is accepted resolves a network."""
    data = json.loads(json.dumps(SPACE))
    mutate(data, rng)
    path = place / "space.yaml"
    path.write_bytes(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"))
    space = build_space("yaml", file=str(path))
    space.space_id  # noqa: B018
    space.sample(__import__("numpy").random.default_rng(0))


def limit(place: Path, rng: random.Random) -> None:
    text = rng.choice(LIMITS)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice("<>=%0123456789eE.-+ kMGnaifx\0é²") + text[at + rng.randint(0, 2) :]
    parse_limit(text).resolve({"flops": 1e6, "params": 2e6, "latency_ms": 3.5, "activation_bytes": 1000})


def genotype(place: Path, rng: random.Random) -> None:
    text = rng.choice(["2-2-2-1-2-2-0-2", "0-0-0-0-0-0-0-0", "1-1@28"])
    for _ in range(rng.randint(0, 3)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice("-0123@ .x²٣\0") + text[at + rng.randint(0, 2) :]
    build_space().parse(text)
    Genotype.parse(text)


def problem(place: Path, rng: random.Random) -> None:
    """A selection problem's JSON, mutated, solved as `mathnas select FILE.json` does."""
    data = json.loads(json.dumps(PROBLEM))
    mutate(data, rng)
    top_k(read_problem(data), 2, time_limit_s=2)


CONFIG_CASES: list[Case] = [
    *(study_file, study_file, study_file, override, space_file, limit, genotype, problem),
    *(plugin, plugin, settings, settings, metric),
]


class StoreCases:
    """A finished small study; each case copies it, damages one file, and reads it in every way a stage does."""

    def __init__(self, original: Path) -> None:
        self.original = original
        rows = list(itertools.product(range(3), repeat=3))
        table = {"arch": ["".join(map(str, row)) for row in rows], "mean_acc": [float(sum(row)) for row in rows]}
        original.parent.mkdir(parents=True, exist_ok=True)
        self.table = original.parent / "table.parquet"
        pq.write_table(pa.table(table), self.table)
        self.config = StudyConfig.model_validate(
            {
                "name": "fuzz",
                "space": {"kind": "tiny"},
                "scorer": {"kind": "tabular", "path": str(self.table)},
                "design": {"held_out": 2},
                "profile": {"resources": ["flops", "params"]},
                "select": {"limits": ["flops<=70%"]},
                "verify": {"evaluations": 2, "per_round": 1},
            }
        )
        study = Study.create(self.config, str(original))
        study.store.add_costs(profile_blocks(study.family, self.config.profile, ["flops", "params"]))
        study = Study.open(str(original))
        for network in study.design.genotypes:
            study.store.add_evaluations(study.scorer.evaluate([network]))
        study.refresh()
        study.outputs.write_block_scores(study.snapshot)
        study.store.write_json("selection.json", study.select(["flops<=70%"], top=2).as_dict())
        next_round(study.snapshot, study.outputs, 0)
        for stage in ("profile", "score", "select"):
            study.outputs.record(stage, wall_s=1.0, compute_s=1.0, num_new=1, num_reused=0, num_failed=0, device="cpu")
        study.store.write_json("lease.json", {"holder": "x", "host": "h", "machine": "m", "pid": 1, "started": "1"})
        self.paths = study.store.paths()

    def __call__(self, place: Path, rng: random.Random) -> None:
        root = place / "study"
        shutil.copytree(self.original, root)
        path = root / rng.choice(self.paths)
        self._damage(path, rng)
        study = Study.open(str(root))
        study.scorer.check()
        study.store.quarantined()
        study.evaluations()
        study.records()
        _status(study)
        verification(study.outputs)
        _ = study.winner
        study.select(study.config.select.limits, top=2, time_limit_s=2)
        next_round(study.snapshot, study.outputs, 0)
        if rng.random() < 0.2:
            Store(str(root)).compact()

    def _damage(self, path: Path, rng: random.Random) -> None:
        data = path.read_bytes()
        if path.suffix == ".parquet" and path.parent.parent.parent.name in ("evaluations", "costs"):
            path.unlink()
            path.with_name(f"{_new_name(changed := _other_rows(data, rng))}.parquet").write_bytes(changed)
        elif path.suffix == ".json" and rng.random() < 0.7:
            nested = json.loads(data)
            mutate(nested, rng)
            path.write_text(json.dumps(nested, default=str))
        elif path.suffix == ".yaml" and rng.random() < 0.7:
            nested = yaml.safe_load(data)
            mutate(nested, rng)
            path.write_bytes(yaml.safe_dump(nested, allow_unicode=True).encode("utf-8", "surrogatepass"))
        else:
            path.write_bytes(mutate_bytes(data, rng))


def _status(study: Study) -> None:
    from nas_core.records import lease

    beat, lease.BEAT_S = lease.BEAT_S, 0.001  # the lease in the store is of another machine: do not wait for its beats
    try:
        study.status()
    finally:
        lease.BEAT_S = beat


def _new_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _other_rows(data: bytes, rng: random.Random) -> bytes:
    """Another part, with a right checksum: other values, other columns, other types, or not Parquet at all."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    table = pq.read_table(pa.BufferReader(data))
    metadata, rows = table.schema.metadata, table.to_pylist()
    mutate(rows, rng)
    rows = [row for row in rows if isinstance(row, dict)]
    try:
        changed = pa.Table.from_pylist(rows, schema=table.schema if rng.random() < 0.7 else None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeError):
        column = rng.randrange(table.num_columns)
        changed = table.remove_column(column)
    if rng.random() < 0.9:
        changed = changed.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(changed, sink)
    except pa.ArrowException:
        return data[:100]
    return bytes(sink.getvalue())
