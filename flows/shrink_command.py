"""`mathnas shrink`: a trained model and limits in; a study that finds the faster model, and its files, out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.model_as_given import channels_taken, known_to_timm, parsed, trained_with
from flows.plan import priced
from flows.preflight import check_profilers
from nas_core.base.errors import ConfigError, DataError, InfeasibleError, NasError
from nas_core.base.units import Amount
from nas_core.base.words import counted
from nas_core.costs.latency import RESOURCE as LATENCY
from nas_core.costs.profiler import PROFILERS
from nas_core.families.trained_model import OWN, TrainedModel
from nas_core.program.limits import is_called, parse_limit
from nas_core.space.genotypes import Genotype
from nas_core.study.as_given import measure_as_given
from nas_core.study.brought import family_of, trained_metric, workload_of
from nas_core.study.config import StudyConfig, load_config
from nas_core.study.stages import CONFIG, INSIDE, TRAINING, VERIFICATION
from nas_core.study.sweep import beginning_at, first_met, limits_of
from nas_core.workloads import WORKLOADS
from nas_core.workloads.images.parquet_images import holds_no_images

if TYPE_CHECKING:
    from nas_core.study.study import Study

Result = TypeVar("Result")
HEADER = """\
# Made by `mathnas shrink`. Run it again with `mathnas run {path} --root {root}`; what is done is kept.
# `mathnas init` shows every field with what it means.
"""
ALWAYS_PRICED = ("flops", "params", LATENCY)
MOST_RECOVERED = 4  # points of a sweep, where it is not said how many
EVALUATIONS_PER_POINT = 4  # in verification
MOST_VALIDATION = 2000  # images that networks are rated on
COMPARED = ("depth", "uniform")  # beside the model itself and a random network
DISTILLED, DISTIL_EPOCHS = 20_000, 2.0  # images from which alternatives learn, in so many epochs at most
FINAL_STEPS = 1000  # of the best few networks' recovery before one is chosen, the winner's own where that is shorter
FEWEST_STEPS = 50  # with fewer at the full learning rate a model's own weights were seen to become worse
LITTLE = 0.5  # of the FLOPs in positions: below it what stands in the way is told
RATED_SHARE = 5  # all networks' is so many times shorter than that
PAIRS = {"segmentation": "masks", "image-to-image": "targets"}  # kind of data -> the folder beside images/
TABLES = (".csv", ".tsv")  # which say neither what they hold nor what is predicted, as Parquet without images


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What `mathnas shrink` was asked for."""

    model: str
    checkpoint: Path | None
    data: str
    limits: Sequence[str]
    out: Path
    positions: int | None = None
    only: Sequence[str] = ()
    keep: Sequence[str] = ()
    epochs: float = 5.0
    distil_epochs: float | None = None  # as many as ``DISTILLED`` images take, ``DISTIL_EPOCHS`` at most
    points: int | None = None  # limits of a sweep, over the range among ``limits``
    recover: int | None = None  # of them to recover
    seed: int = 0

    @property
    def root(self) -> Path:
        """The study's folder."""
        return self.out / INSIDE

    @property
    def name(self) -> str:
        last = self.model.rpartition(":")[2].rpartition("/")[2]
        plain = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in last)
        return f"{plain or 'model'}-shrunk"[:60]


def study_of(wish: Wish, overrides: Mapping[str, str], tell: Callable[[str], object] = lambda _: None) -> StudyConfig:
    """The study that the wish means, the model's preparation told by its own metric; ``tell`` is given both in words.

    Raises:
        NasError: for a limit that cannot be read, what cannot be measured here, data or a model that are not there,
            or a model without positions.
    """
    _check_out(wish.out)
    limits = [parse_limit(text) for text in wish.limits]  # before data are read
    if "plugins" in overrides:  # whose data may be meant
        parsed({"name": wish.name}, {"plugins": overrides["plugins"]})
    section = {**_section(wish), **_sweep(wish)}
    _check_same(wish.out, section["space"]["model"])
    config = parsed(section, overrides)
    for limit in limits:
        limit.resolve(dict.fromkeys(config.profile.resources, 1.0))
    check_profilers(config.profile, config.profile.resources)
    if "side" in type(config.data).model_fields and (side := _side_of(wish)) is not None:
        section["data"]["side"] = side
    if "validation_examples" in type(config.data).model_fields:
        section["data"]["validation_examples"] = 1  # to be asked how many there are, however few, and however many
        whole = {name: text for name, text in overrides.items() if name != "data.train_examples"}  # of them are used
        workload = workload_of(parsed(section, whole))
        workload.check()
        section["data"]["validation_examples"] = min(MOST_VALIDATION, max(1, workload.num_examples()[0] // 5))
    if "space.in_channels" not in overrides:
        section["space"] |= channels_taken(section, overrides)
    found = trained_with(section, overrides)
    section["data"] |= found.settings
    tell(found.in_words)
    config = parsed(section, overrides)
    workload = workload_of(config)
    num_train, _ = workload.num_examples()
    if not workload.augments:
        for stage in ("scorer", "train"):
            section[stage]["recipe"]["augment"] = "none"
    if wish.distil_epochs is None:
        section["scorer"]["recipe"]["epochs"] = min(DISTIL_EPOCHS, round(DISTILLED / num_train, 4))
    if config.scorer.train:  # without, no network is trained to be rated
        recipe = config.train.recipe
        of_winner, _ = workload.with_train_examples(config.train.train_examples).num_examples()
        final_steps = min(FINAL_STEPS, math.ceil(recipe.epochs * of_winner / recipe.batch_size))
        section["scorer"] |= {"final_steps": final_steps, "recovery_steps": final_steps // RATED_SHARE}
        if final_steps < FEWEST_STEPS:
            enough = math.ceil(10 * FEWEST_STEPS * recipe.batch_size / of_winner) / 10
            few = counted(final_steps, "step")
            tell(f"{few} of training at the end can do a good network harm: try --epochs {enough:g}")
    return parsed(section, overrides)


def _check_out(out: Path) -> None:
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"--out {out}", f"{there}, a file", "a folder, or a name that is free")


def _check_same(out: Path, model: str) -> None:
    """Raises ConfigError where the folder holds what was made of another model: its files would be replaced."""
    try:
        space = load_config((out / CONFIG).read_bytes(), source=str(out / CONFIG)).space
    except (OSError, NasError):  # none, or one that cannot be read any more, which the run says
        return
    before = str(getattr(space, "model", model))
    if before.rpartition("/")[2] != model.rpartition("/")[2]:  # the same one may lie in another folder now
        raise ConfigError(f"--out {out}", f"what was made of {before}", "a folder of its own for another model")


def written(config: StudyConfig, wish: Wish) -> Path:
    """The study's YAML in the folder asked for."""
    path = wish.out / "study.yaml"
    try:
        wish.out.mkdir(parents=True, exist_ok=True)
        text = HEADER.format(path=path, root=wish.root) + config.as_yaml().decode()
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {wish.out}", error.strerror or str(error), "a folder that can be written") from None
    return path


def positions_in_words(config: StudyConfig) -> list[str]:
    """A table of the positions: what stands there, its share of the FLOPs, what may stand there instead."""
    from nas_core.base.words import aligned
    from nas_core.families.model.splitting import outermost

    family = family_of(config)
    assert isinstance(family, TrainedModel), "the study of `mathnas shrink` has a trained model"
    structure = family.structure
    rows = [["position", "block", "of FLOPs", "alternatives"]]
    for place, candidates in zip(structure.split.places, structure.candidates, strict=True):
        kinds = ", ".join(_short(each.spec.as_dict()) for each in candidates)
        rows.append([place.name, place.kind, f"{100 * place.share:.1f} %", kinds])
    covered = sum(place.share for place in structure.split.places)
    num_positions = counted(len(structure.split.places), "position")
    lines = [*aligned(rows), f"{num_positions} with {100 * covered:.0f} % of the FLOPs."]
    if covered < LITTLE:
        reasons = list(outermost(structure.split.left_out).items())[:5]
        lines += ["Not among them:", *(f"  {path}: {reason}" for path, reason in reasons)] if reasons else []
    return lines


def _short(spec: Mapping[str, Any]) -> str:
    """``narrower 0.5``: the kind and the one setting that tells it from its kin."""
    telling = next((str(spec[name]) for name in ("ratio", "branch", "kernel", "groups") if name in spec), "")
    return f"{spec['kind']} {telling}".strip()


def _data_of(wish: Wish) -> dict[str, Any]:
    path = Path(wish.data)
    if path.is_dir() and not any(path.glob("*.parquet")):
        names = {each.name for folder in (path, path / "train") for each in folder.glob("*/")}
        kind = next((kind for kind, beside in PAIRS.items() if {"images", beside} <= names), "folder")
        return {"kind": kind, "path": str(path.absolute())}
    if path.suffix.lower() in TABLES or holds_no_images(path):
        advice = f"--data image-table --set data.path={path}, or --data rows --set data.path={path}."
        raise DataError("--data", f"{path}, a table", "a folder of images, or what the table is", advice)
    if path.exists():
        return {"kind": "parquet", "path": str(path.absolute())}
    if wish.data in WORKLOADS:
        return {"kind": wish.data}
    known = ", ".join(name for name in WORKLOADS if name not in ("folder", "parquet", "timm"))
    raise DataError("--data", repr(wish.data), f"a folder of images, a Parquet file, or one of: {known}")


def _sweep(wish: Wish) -> dict[str, Any]:
    """The sections that a sweep changes: its tightest limit is the study's own, so that its first point is the winner.

    Raises:
        ConfigError: for points without one range among the limits, or more to recover than there are.
    """
    if wish.points is None:
        if wish.recover is not None:
            raise ConfigError("--recover", str(wish.recover), "--points beside it: it says how many of them to recover")
        return {}
    ranges = [text for text in wish.limits if _is_range(text)]
    if len(ranges) != 1:
        expected = "one range among the limits, such as --limit 'latency_ms=30%..100%'"
        raise ConfigError("--points", f"{len(ranges)} ranges in {', '.join(wish.limits)}", expected)
    named, known = parse_limit(ranges[0]).resource, _resources(wish)
    same = [text for text in wish.limits if text != ranges[0] and _are_of_one(known, named, parse_limit(text).resource)]
    if same:
        raise ConfigError(
            "--points", f"{same[0]} beside {ranges[0]}", "one range of a resource, which is all its limits"
        )
    recover = min(MOST_RECOVERED, wish.points) if wish.recover is None else wish.recover
    if recover > wish.points:
        raise ConfigError("--recover", str(recover), f"at most --points {wish.points}")
    tightest = limits_of(ranges[0], wish.points)[0]
    limits = [tightest if text == ranges[0] else text for text in wish.limits]
    evaluations = max(24, EVALUATIONS_PER_POINT * wish.points)
    return {
        "select": {"limits": limits, "sweep": ranges[0], "points": wish.points, "recover": recover},
        "verify": {"evaluations": evaluations, "per_round": max(4, wish.points), "patience": 3},
    }


def _are_of_one(known: Sequence[str], one: str, other: str) -> bool:
    """Whether two names, as limits have them, are of one resource."""
    return any(is_called(resource, one) and is_called(resource, other) for resource in known) or one == other


def within_reach(
    config: StudyConfig, root: str, run: Callable[[StudyConfig], Result], tell: Callable[[str], object]
) -> tuple[StudyConfig, Result]:
    """The study, and what ``run`` gives of it: where its limits cannot be met, of its sweep without those.

    What limits on latency can be met is known once blocks were measured. ``tell`` is given in words what was left out.

    Raises:
        InfeasibleError: where nothing of a sweep is left.
    """
    try:
        return config, run(config)
    except InfeasibleError:
        config, left_out = without_unmet(config, root)
        if not left_out:
            raise
        tell(left_out)
        return config, run(config)


def without_unmet(config: StudyConfig, root: str) -> tuple[StudyConfig, str]:
    """The study whose sweep begins where some network can be, and what was left out, in words.

    It stays as it is where none of the sweep's limits can be met, or costs are not known yet.
    """
    select = config.select
    if not select.sweep:
        return config, ""
    index, limits = first_met(priced(config, root)), limits_of(select.sweep, select.points)
    if index == 0:
        return config, ""
    select = beginning_at(select, index)
    left = f"the sweep is {select.sweep}, {select.points} points" if select.sweep else f"{limits[index]} is left"
    left_out = f"No network meets {' or '.join(limits[:index])}: {left}."
    return config.model_copy(update={"select": select}), left_out


def _is_range(text: str) -> bool:
    limit = parse_limit(text)
    return isinstance(limit.at_least, Amount) and limit.at_most not in (None, limit.at_least)


def _section(wish: Wish) -> dict[str, Any]:
    distil_epochs = DISTIL_EPOCHS if wish.distil_epochs is None else wish.distil_epochs
    recipe = {"batch_size": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.0, "augment": "crop-flip"}
    taught = {"model": "own", "weight": 0.9, "temperature": 2.0, "features": 1.0}
    return {
        "name": wish.name,
        "seed": wish.seed,
        "space": {
            "kind": "model",
            "model": _from_here(wish.model),
            "checkpoint": str(wish.checkpoint.absolute()) if wish.checkpoint else None,
            "only": list(wish.only),
            "keep": list(wish.keep),
            "wanted": wish.positions,
        },
        "data": _data_of(wish),
        "scorer": {
            "kind": "distil",
            "train": distil_epochs > 0,
            "recovery_steps": 0,
            "final_steps": 0,
            "recipe": {**recipe, "epochs": distil_epochs or 1, "clip_norm": None},
        },
        "design": {"kind": "one-swap"},
        "profile": {"resources": _resources(wish), "profilers": {"latency": {"runtime": _runtime()}}},
        "select": {"limits": list(wish.limits)},
        "verify": {"evaluations": 24, "patience": 3},
        "train": {"recipe": {**recipe, "epochs": wish.epochs, "teacher": taught}, "compare": list(COMPARED)},
    }


def _resources(wish: Wish) -> list[str]:
    """What blocks cost: always FLOPs, parameters and latency, and what else a limit names.

    Raises:
        ConfigError: for a limit on something else.
    """
    known = [resource.name for name in PROFILERS for resource in PROFILERS[name].resources]
    named = [parse_limit(text).resource for text in wish.limits]
    for text, name in zip(wish.limits, named, strict=True):
        if not any(is_called(resource, name) for resource in known):
            raise ConfigError(f"limit {text!r}", repr(name), f"one of: {', '.join(known)}")
    more = [resource for resource in known if any(is_called(resource, name) for name in named)]
    return list(dict.fromkeys((*ALWAYS_PRICED, *more)))


def _runtime() -> str:
    """What runs the networks that are timed: where there is no GPU, what runs the file that is handed over."""
    import torch

    return "eager" if torch.cuda.is_available() else "onnxruntime"


def _from_here(model: str) -> str:
    """A model in a file, by its path from anywhere: workers run elsewhere."""
    if model.endswith(".pt2"):
        return str(Path(model).absolute())
    place, colon, factory = model.rpartition(":")
    return f"{Path(place).absolute()}:{factory}" if colon and place.endswith(".py") else model


def _side_of(wish: Wish) -> int | None:
    """The side of images that a model of timm's takes; None where it takes what the data have."""
    known = known_to_timm(wish.model)
    return int(known.input_size[-1]) if known is not None else None


def result_in_words(study: "Study") -> list[str]:
    """The table at the end: the model, the result, what it is compared with; and what stands where in the result."""
    from nas_core.base.words import aligned
    from nas_core.report.text import (
        format_amount,
        format_metric,
        format_percent,
        format_seeds,
        metric_column,
        short_genotype,
        trained_name,
    )

    trained = study.output(TRAINING) or {"networks": ()}
    title, latency = _latency_of(study, trained["networks"])
    recipe, metric = study.config.train.recipe, trained_metric(study.config)
    titles = [title, "of the model"] if latency else []
    rows = [["network", "role", metric_column(metric, "test"), *titles, "FLOPs", "params", "epochs"]]
    own = next((latency.get(row["name"]) for row in trained["networks"] if row["role"] == "base"), None)
    for row in trained["networks"]:
        mine = latency.get(row["name"])
        name = {"winner": "shrunk", "base": "the model"}.get(row["role"], row["name"])
        tests = [each["metrics"]["test"][row["metric_name"]] for each in (row, *row.get("repeats", ()))]
        timed = [format_amount(LATENCY, mine), format_percent(mine / own, 1) if mine and own else ""][: len(titles)]
        counts = [format_amount(what, row["costs"].get(what)) for what in ("flops", "params")]
        label = short_genotype(row["genotype"])
        epochs = f"{recipe.epochs + row.get('more_epochs', 0):.3g}"
        rows.append([label, trained_name(name), format_seeds(metric, tests), *timed, *counts, epochs])
        if row["role"] == "base" and (value := measure_as_given(study).get(metric.name)) is not None:
            rows.append([label, "as it was given", format_metric(metric, value), *timed, *counts, "0"])
    return [*aligned(rows), *_what_stands_where(study)]


def _what_stands_where(study: "Study") -> list[str]:
    """``shrunk: narrower 0.5 at layer1.0, layer2.1; as in the model at stem``: the winner's blocks in one line."""
    if study.winner is None:
        return []
    where: dict[str, list[str]] = {}
    for position, choice in zip(study.space.positions, Genotype.parse(study.winner).choices, strict=True):
        block = position.blocks[choice]
        words = "as in the model" if block == OWN else _short(block.as_dict())
        where.setdefault(words, []).append(position.name)
    return ["shrunk: " + "; ".join(f"{words} at {', '.join(names)}" for words, names in where.items())]


def _latency_of(study: "Study", networks: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """What a latency is of, and the trained networks' by their names: measured whole in turns, where they were.

    Else, as where that was done on another machine before they were trained; else the sums of their blocks.
    """
    verified = (study.output(VERIFICATION) or {}).get("whole") or ()
    elsewhere = {row["genotype"]: row["value"] for row in verified if row["status"] == "ok"}
    of_whole = {row["name"]: elsewhere[row["genotype"]] for row in networks if row["genotype"] in elsewhere}
    in_turns = {row["name"]: row["measured"][LATENCY] for row in networks if LATENCY in row.get("measured", {})}
    for found in (in_turns, of_whole):
        if any(row["role"] == "base" and row["name"] in found for row in networks):
            return "latency whole", found
    return "latency", {row["name"]: row["costs"][LATENCY] for row in networks if LATENCY in row["costs"]}


def not_handed_over(config: StudyConfig) -> list[str]:
    """Files that cannot be written of such networks, and why: known before anything is trained.

    Raises:
        ConfigError: if latency is to be measured on such files.
    """
    from nas_core.costs.conditions import is_of_files
    from nas_core.study.brought import family_of
    from nas_core.training.handover import why_no_onnx, why_no_program

    family = family_of(config)
    base = Genotype((0,) * family.space.num_positions)
    network = family.module(base)
    why, no_program = why_no_onnx(network, family.sample), why_no_program(network, family.sample)
    runtime = config.profile.profilers["latency"].runtime
    if why and is_of_files(runtime):
        expected = "eager or compile for this model"
        raise ConfigError("profile.profilers.latency.runtime", f"{runtime}, and {why}", expected)
    absent = {"model.onnx": why, "model.pt2": no_program}
    return [f"no {name} will be written: {reason}" for name, reason in absent.items() if reason]


def hand_over(study: "Study", out: Path) -> list[str]:
    """Write the shrunk model's files into the folder, those of a sweep's points into folders below it.

    Returns what was written and how to load it. Points of an earlier range are removed.
    """
    from flows.export_command import handed_over
    from nas_core.study.finished import finished
    from nas_core.training.handover import FORMATS, remove

    done = finished(study.store.root)
    lines = handed_over(done, out, FORMATS)
    points = done.points()
    for folder in out.glob("point-*"):
        if folder.name not in (point.name for point in points):
            remove(folder)
    for point in points:
        lines += handed_over(point, out / point.name, FORMATS)
    return lines
