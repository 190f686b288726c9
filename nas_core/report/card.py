"""The model card that travels with a network's files: what it is, what it rates at, costs, and how to load it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_core.base.machine import installed_versions
from nas_core.base.words import aligned, counted
from nas_core.report.text import (
    format_metric,
    format_milliseconds,
    format_quantity,
    format_seeds,
    longer_in_words,
    metric_column,
    metric_label,
    outcome_lines,
    short_genotype,
    trained_name,
)
from nas_core.study.analytic_project import WINNER
from nas_core.study.as_given import as_given
from nas_core.study.finished import FileLatency, Finished
from nas_core.study.stages import run_again
from nas_core.training.handover import LOADER, ONNX, PROGRAM, WEIGHTS, Written

PACKAGES = ("mathnas", "torch", "timm", "onnx", "onnxruntime", "onnxscript", "safetensors")
PASSED_ON = "nothing: what comes in goes out"
ROLES = {"winner": "the study's winner, trained alike", "base": "the base network, trained alike",
         "random": "drawn within the limits",
         "point": "the best at another limit, trained alike"}  # fmt: skip


def card(done: Finished, written: Written, latency: Sequence[FileLatency] | str) -> str:
    """The card in Markdown; ``latency`` is why the file was not measured where it was not."""
    row, given = done.winner, done.store.read_json(done.winner["architecture_path"])
    sections = {
        "What it is": _made_of(done, given),
        "Use": _use(written, given),
        "Input and output": _input(done, given, written),
        "Rated": _rated(done),
        "Cost": _costs(done, written, latency),
        "The ONNX file": _onnx(written),
        "Training": _training(done, row),
        "Made with": [f"- {name} {version}" for name, version in installed_versions(PACKAGES).items()],
    }
    head = f"# {done.config.name}: {row['genotype']}"
    texts = [f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items() if lines]
    return "\n\n".join([head, *texts]) + "\n"


def _made_of(done: Finished, given: Mapping[str, Any]) -> list[str]:
    lines = []
    if "changes" in given:
        changes = given["changes"]
        lines = [f"- made of `{given['model']['name']}` (arguments {given['model']['arguments']})"]
        lines += [f"- `{path}`: {_change(change)}" for path, change in changes.items()]
        lines += [] if changes else ["- nothing of the model is changed but its weights"]
    if done.study is not None:
        outcome = done.study.outcome() if done.name == WINNER else None  # which is what is said of the winner
        lines += [] if done.name == WINNER else ["- the best at one of the limits that the study swept"]
        lines.append(f"- limits: {', '.join(f'`{limit}`' for limit in done.limits) or 'none'}")
        lines += [f"- {line}" for line in (outcome_lines(outcome, done.study.scorer.measure) if outcome else ())]
        lines.append(f"- space `{done.study.space.name}` of {done.study.space.num_networks:,} networks")
    if done.design is not None and (answer := done.design.answer) is not None:
        lines.append(
            f"- designed: {answer['objective']} {answer['score']:,.2f}, bound {answer['bound']:,.2f}, "
            f"gap {100 * answer['gap']:.3f} %"
        )
    return lines


def _change(change: Mapping[str, Any]) -> str:
    if "set" in change:
        return ", ".join(f"{name} = {value}" for name, value in change["set"].items())
    return f"replaced by {_module(change['put'])}"


def _module(put: Mapping[str, Any]) -> str:
    """What a described module (``rebuild.described``) is, to who does not know the loader's own classes."""
    match put["class"]:
        case "Only":
            return _module(put["inner"])
        case "Sequential":
            return ", then ".join(map(_module, put["layers"])) or PASSED_ON
        case name:
            sides = put.get("kernel_size")
            of_size = f" of {' x '.join(map(str, sides))}" if isinstance(sides, list) else ""
            return {"Identity": PASSED_ON, "Nothing": "nothing, which adds zeros"}.get(name, f"one {name}{of_size}")


def how_to_load(written: Written) -> dict[str, str]:
    """File -> the line that loads it."""
    lines = {}
    if LOADER in written.files:
        lines[LOADER] = f'from load import load; network = load("{written.folder}")'
    if PROGRAM in written.files:
        lines[PROGRAM] = f'network = torch.export.load("{written.folder / PROGRAM}").module()'
    if ONNX in written.files:
        lines[ONNX] = f'session = onnxruntime.InferenceSession("{written.folder / ONNX}")'
    return lines


def _absent(written: Written) -> dict[str, str]:
    """File that is not there -> why."""
    found = {f"model.{kind}": why for kind, why in written.refused.items()}
    if LOADER not in written.files and WEIGHTS in written.files:
        found[LOADER] = f"it would read {PROGRAM}, as the weights are of a network that mathnas makes"
    return found


def _use(written: Written, given: Mapping[str, Any]) -> list[str]:
    files = [f"- `{name}`, {format_quantity('file_bytes', size)}" for name, size in sorted(written.files.items())]
    absent = [f"- no `{name}`: {why}" for name, why in _absent(written).items()]
    code = [
        line.replace(f"{written.folder}/", "").replace(f'"{written.folder}"', '"."')
        for line in how_to_load(written).values()
    ]
    lines = [*files, *absent, *(["", "```python", *code, "```"] if code else [])]
    if LOADER not in written.files:
        return lines
    what = "the largest outputs of images" if given.get("gives_logits", True) else "what comes out for images"
    what += ", as fractions from 0 to 1" if _has_own_units(given) else ""
    takes_images = len(given["input"]["shape"]) == 3
    shell = ["", "```sh", f"python {LOADER} . IMAGE...   # {what}", "```"] if takes_images else []
    needs = f"`{LOADER}` needs torch, timm and safetensors; what it reads is beside it."
    return [*lines, *shell, "", needs]


def _has_own_units(given: Mapping[str, Any]) -> bool:
    return bool(given["input"].get("own_units", False))


def _input(done: Finished, given: Mapping[str, Any], written: Written) -> list[str]:
    known, workload = given["input"], done.workload
    named = {ONNX: f"`{ONNX}` (`inputs` -> `outputs`)", LOADER: f"`{LOADER}`"}
    plain = [text for name, text in named.items() if name in written.files] or ["the network"]
    shape = " x ".join(map(str, known["shape"]))
    is_image = len(known["shape"]) == 3
    as_stored = "as the data have them (bytes: fractions from 0 to 1)" if is_image else "as they are stored"
    values = "fractions from 0 to 1" if is_image and not _has_own_units(given) else as_stored
    # Images of other sides than the network's, or of any, were made square; all others are taken as they are.
    are_fitted = hasattr(workload, "fitting") or known["shape"][1:] != list(workload.sample.shape[1:])
    lines = [
        f"- {' and '.join(plain)}: {known.get('dtype', 'float32')}, B x {shape}, {values}; any B",
        f"- `{PROGRAM}`: B x {known['shape'][0]} x height x width, {known['values']}"
        if is_image and PROGRAM in written.files
        else "",
        f"- normalised inside: mean {known['mean'] or 'none'}, deviation {known['std'] or 'none'}",
        f"- how images became squares: {known['fitting']}" if "fitting" in known and are_fitted else "",
        f"- outputs, by number: {', '.join(done.winner['output_names']) or 'without names'}",
    ]
    return [line for line in lines if line]


def _rated(done: Finished) -> list[str]:
    metrics = {name: done.workload.metrics[name] for name in done.winner["metrics"]["test"]}
    head = ["network", "what it is", *(metric_column(metric, "test") for metric in metrics.values())]
    rows = [head, ["---"] * len(head)]
    for row in done.networks:
        tested = (format_metric(metric, row["metrics"]["test"][name]) for name, metric in metrics.items())
        what = "this network" if row is done.winner else ROLES.get(row["role"]) or trained_name(row["role"])
        rows.append([f"`{short_genotype(row['genotype'])}`", what, *tested])
    given = as_given(done.study) if done.study is not None else {}
    if given:
        cells = (format_metric(metric, given[name]) if name in given else "" for name, metric in metrics.items())
        rows.append(["", "the model as it was given", *cells])
    return [
        *map(_row, rows),
        "",
        *_in_detail(done),
        f"{done.winner['num_test_examples']:,} test examples, looked at once, seed {done.winner['seed']}.",
        *filter(None, [longer_in_words((row["role"], row.get("more_epochs", 0.0)) for row in done.networks)]),
        *_repeated(done),
    ]


def _in_detail(done: Finished) -> list[str]:
    """This network's test metrics by class, label or number, where its data have such a table."""
    found = done.winner.get("details", {}).get("table")
    if not found:
        return []
    head = found["head"]
    return ["This network in detail:", "", _row(head), _row(["---"] * len(head)), *map(_row, found["rows"]), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _repeated(done: Finished) -> list[str]:
    """What other seeds made of the same networks: their weights are not these."""
    name = done.winner["metric_name"]
    metric = done.workload.metrics[name]
    return [
        f"`{short_genotype(row['genotype'])}` from {len(values)} seeds: "
        f"{metric_label(metric, 'test')} {format_seeds(metric, values)}."
        for row in done.networks
        if len(values := [each["metrics"]["test"][name] for each in (row, *row.get("repeats", ()))]) > 1
    ]


def _costs(done: Finished, written: Written, latency: Sequence[FileLatency] | str) -> list[str]:
    names = list(done.winner["costs"])
    rows = [["network", *(name.replace("_", " ") for name in names)], ["---"] * (1 + len(names))]
    for row in done.networks:
        rows.append(
            [f"`{short_genotype(row['genotype'])}`", *(format_quantity(name, row["costs"].get(name)) for name in names)]
        )
    lines = [*(f"| {' | '.join(row)} |" for row in rows), "", "Sums over blocks, by which the network was chosen."]
    lines += [_whole(row) for row in _measured_whole(done)]
    return [*lines, "", *latency_in_words(latency, _chosen_anew(done, written.folder))]


def _measured_whole(done: Finished) -> list[Mapping[str, Any]]:
    verified = done.study.current("verify") if done.study is not None else None
    return [row for row in (verified or {}).get("whole") or () if row["status"] == "ok"]


def _whole(row: Mapping[str, Any]) -> str:
    amount, within = (format_quantity(row["resource"], value) for value in (row["value"], 2 * row["spread"]))
    conditions = (
        f"batch {row['batch_size']}, threads {row['num_threads']}, {row['num_repeats']} repeats, {row['device']}"
    )
    said = f"{amount}, the middle 80 % of runs within {within}"
    return f"- `{short_genotype(row['genotype'])}` measured whole: {said} ({conditions})"


def latency_in_words(latency: Sequence[FileLatency] | str, anew: str) -> list[str]:
    """Files' latency beside the base's, and whether the limits hold on the one that they are for.

    ``anew`` is what chooses anew.
    """
    if isinstance(latency, str):
        return [f"The file's latency was not measured: {latency}."]
    return [line for each in latency for line in _file_in_words(each, anew)]


def _chosen_anew(done: Finished, folder: Path) -> str:
    """The commands that choose a network by new measurements and write its files."""
    root = done.store.root
    export = shlex.join(["mathnas", "export", root, "--to", str(folder)])
    writes = f"`{export}`" if done.name == WINNER else "the same `mathnas shrink`"  # which writes a sweep's points
    return f"`{run_again(root)} --from verify` chooses anew, and {writes} writes the files."


def _file_in_words(latency: FileLatency, anew: str) -> list[str]:
    mine, base = latency.medians
    times = len(latency.winner_ms)
    conditions = f"batch {latency.batch_size}, {counted(latency.num_threads, 'thread')}, {latency.device}"
    low, high = min(latency.winner_ms), max(latency.winner_ms)
    lines = [
        f"{latency.file} takes {format_milliseconds(mine)} (median of {times} times; {format_milliseconds(low)} to "
        f"{format_milliseconds(high)}): {conditions}."
    ]
    if base is not None:
        share = f"{100 * mine / base:.1f} % of it"
        lines.append(f"The base network's, in turns with it: {format_milliseconds(base)}; this one takes {share}.")
    for text, kept in latency.kept.items():
        lines.append(f"The limit {text} holds on {latency.file} in {kept} of {times} times.")
        if 2 * kept < times:
            lines.append(f"It was chosen by other measurements. Where little else runs, {anew}")
    return lines


def _onnx(written: Written) -> list[str]:
    check = written.check
    if check is None:
        return []
    lines = [
        f"- compared with torch on {check.num_examples} test examples in batches of {check.batch_size}: "
        f"outputs differ by {check.worst:.1e} of the largest at most",
        *(
            f"- {name.replace('_', ' ')}: torch {one:.6g}, file {other:.6g}"
            for name, (one, other) in check.metrics.items()
        ),
        f"- exported by torch.onnx, dynamo={check.way == 'program'}",
    ]
    return lines + [f"- not taken, dynamo={way == 'program'}: {why}" for way, why in check.passed_over.items()]


def _training(done: Finished, row: Mapping[str, Any]) -> list[str]:
    applied = done.config.train.recipe.applied_to(done.workload)
    recipe = applied.model_dump(mode="json", exclude_defaults=applied.name is None)
    lines = [f"- {name}: {text}" for name, text in done.workload.describe()]
    return [
        *lines,
        f"- trained on {row['num_train_examples']:,} examples, validated on {row['num_validation_examples']:,}",
        f"- {row['steps']:,} steps in {row['wall_s']:.0f} s on {row['device']}",
        f"- recipe, where it is not the default: {recipe}",
    ]


def in_words(done: Finished, written: Written, latency: Sequence[FileLatency] | str) -> list[str]:
    """What was written and how to load it, for a terminal."""
    rows = [[str(written.folder / name), format_quantity("file_bytes", size)] for name, size in written.files.items()]
    lines = [*aligned(rows), *(f"{name}: {line}" for name, line in how_to_load(written).items())]
    lines += [f"no {name}: {why}" for name, why in _absent(written).items()]
    if written.check is not None:
        check = written.check
        lines.append(
            f"{ONNX} agrees with torch on {check.num_examples} test examples: outputs to {check.worst:.1e}, the same "
            f"{', '.join(done.workload.metrics[name].label for name in check.metrics)}."
        )
    if ONNX not in written.files and isinstance(latency, str):
        return lines
    return [*lines, *latency_in_words(latency, _chosen_anew(done, written.folder))]
