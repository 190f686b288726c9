"""The command line `mathnas`. Verbs are the stages; heavy imports happen inside the verb that needs them.

Exit codes: 0 done, 2 for what the user can mend (one message, no traceback),
130 when interrupted. Only this room prints; long commands have a module each.
"""

import contextlib
import errno
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flows.command_group import CommandGroup
from flows.design_command import design
from flows.extras import need, not_installed
from flows.plugins_command import check, plugins
from flows.printing import AsJson, drop_output, is_of_a_gone_reader, print_json, print_what_can_be_printed
from nas_core.base.errors import ConfigError, NasError, SpaceError, StoreError
from nas_core.study.stages import CONFIG, DESIGN_CONFIG, MOST_TOP, REPORT, STAGES, SUMMARY, TRACKING, Stage
from tasks.saying import doing, never_silent

if TYPE_CHECKING:
    from nas_core.records.store import Store
    from nas_core.report.summary import StudySummary
    from nas_core.space.genotypes import Genotype, SearchSpace
    from nas_core.study.analytic_config import AnalyticConfig
    from nas_core.study.choices import Answer
    from nas_core.study.config import StudyConfig
    from nas_core.study.study import Study


app = typer.Typer(
    name="mathnas",
    cls=CommandGroup,
    help="Finds the best network of a block-wise family within your limits, and proves what it says.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED, TOLD_TO_END = 130, 143  # exit codes of a process that SIGINT or SIGTERM ended, as shells have them

Root = Annotated[str, typer.Argument(help="The study's folder, or an s3:// or gs:// URI.")]
FROM_HELP = "Repeat this stage and those after it; what was evaluated or trained with the same settings is kept."


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    print_what_can_be_printed()
    _end_cleanly_when_told()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what cannot be written is met here, not at the very end
    except SystemExit as end:
        if end.code in (INTERRUPTED, TOLD_TO_END):  # the first is what typer makes of Ctrl-C
            print("mathnas: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise
    except NasError as error:
        if is_of_a_gone_reader(error):  # who read has read enough, while a model's own code was printing
            _end_unread()
        _refuse(error)
    except ModuleNotFoundError as error:
        words = not_installed(error)
        if words is None:
            raise
        _refuse(words)
    except BrokenPipeError:  # who read has read enough
        _end_unread()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        drop_output(sys.stdout)
        _refuse(StoreError("standard output", error.strerror, "a place with room", "What was computed is stored."))


def _end_cleanly_when_told() -> None:
    """Workers and servers end with us, also where the terminal is closed; what `nohup` ignores stays ignored."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    if signal.Signals(number).name == "SIGHUP":  # the terminal is gone: a last word would be an error
        drop_output(sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr)
    sys.exit(128 + number)


def _end_unread() -> NoReturn:
    drop_output(sys.stdout)
    sys.exit(1)


def _refuse(error: NasError) -> NoReturn:
    print(f"mathnas: {error}", file=sys.stderr)
    sys.exit(2)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path(CONFIG),
    force: Annotated[bool, typer.Option(help="Overwrite the file.")] = False,
) -> None:
    """Write a commented configuration to edit."""
    from flows.init_command import commented_config

    if path.exists() and not force:
        raise ConfigError(str(path), "a file", "a path that is free", "--force overwrites it.")
    _write_text(path, commented_config())
    print(f"Wrote {path}. Edit it, then: mathnas run {shlex.quote(str(path))} --dry-run")


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error), "a path that can be written") from None


@app.command()
def spaces() -> None:
    """List the registered families of networks with their settings."""
    from nas_core.families import FAMILIES

    for name in FAMILIES:
        family = FAMILIES[name]
        if any(field.is_required() for field in family.Settings.model_fields.values()):
            print(f"{name}: what its settings say ({', '.join(family.Settings.model_fields)})")
            continue
        settings = family.Settings()
        space = family(settings).space
        choices = " x ".join(map(str, space.num_choices))
        params = ", ".join(f"{key}={value}" for key, value in settings.model_dump().items())
        print(f"{name}: {space.num_positions} positions ({choices} blocks), {space.num_networks:,} networks; {params}")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    root: Annotated[str | None, typer.Option(help="Folder or URI of the study; default: studies/NAME.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a field, e.g. seed=3 or verify.patience=2.")
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help=FROM_HELP)] = None,
    until: Annotated[str, typer.Option(help="Last stage to run.")] = "report",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another driver of the study to end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be evaluated; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study: every stage, as far as it is missing."""
    from nas_core.records.store import absolute
    from nas_core.study.config import read_config

    study_config = read_config(config, _overrides(set_ or []))
    where = absolute(root or f"studies/{study_config.name}")
    rerun_from, last = _stage(from_, "--from"), _stage(until, "--until") or "report"
    if rerun_from is not None and STAGES.index(rerun_from) > STAGES.index(last):
        stages = ", ".join(STAGES[: STAGES.index(last) + 1])
        raise ConfigError("--from", rerun_from, f"a stage of those to run, up to {last}: {stages}")
    if dry_run:
        _print_plan(_planned(study_config, where, last), as_json)
        return
    need("run", "run")
    from nas_core.records.store import Store, no_empty_folder
    from nas_core.study.beside import of_another
    from nas_core.study.sources import Sources
    from nas_core.study.study import Study

    with never_silent(), no_empty_folder(where):
        with doing("checking the study and its data"):  # every image is read, the first time
            study = Study(study_config, Store(where), Sources.of(study_config, where))
            is_finished = rerun_from is None and study.is_finished(last)
        if is_finished:
            from flows.preflight import check_scores_hold

            check_scores_hold(study)
        else:
            study = _run_stages(study_config, where, rerun_from, last, wait_s=float("inf") if wait else 0.0)
    _print_outcome(study, as_json)
    _say(of_another(study))


@app.command()
def shrink(
    model: Annotated[
        str,
        typer.Argument(
            help="Trained model: timm:NAME, package.module:factory, FILE.py:factory, mlflow:NAME@alias, FILE.pt2."
        ),
    ],
    data: Annotated[str, typer.Option(help="Folder of images, Parquet file, or a registered set.")],
    limit: Annotated[list[str], typer.Option(help="Such as 'latency_ms<=60%' or 'latency_ms<=12 ms'; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the study and the files to hand over.")],
    checkpoint: Annotated[Path | None, typer.Option(help="The model's trained weights (.safetensors, .pth).")] = None,
    positions: Annotated[int | None, typer.Option(min=2, help="About so many positions; default: as found.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Change only these modules, such as 'layer3.*'.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Leave these modules as they are.")] = None,
    points: Annotated[
        int | None, typer.Option(min=2, help="So many limits over the range, such as 'latency_ms=30%..100%'.")
    ] = None,
    recover: Annotated[int | None, typer.Option(min=0, help="Of those points to recover; default: at most 4.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Epochs of the recovery at the end.")] = 5.0,
    distil_epochs: Annotated[
        float | None,
        typer.Option(min=0.0, help="Epochs of the alternatives; default: 2, or 20,000 images; 0: fitted only."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a field of the study.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a trained model faster: within the limits, as good as can be, with a proof of what was chosen."""
    need("run", "shrink")
    _quiet_prefect()  # before anything imports it
    from flows.shrink_command import (
        Wish,
        hand_over,
        not_handed_over,
        positions_in_words,
        result_in_words,
        study_of,
        within_reach,
        written,
    )
    from nas_core.records.lease import hold
    from nas_core.records.store import Store, absolute

    wish = Wish(
        model=model,
        checkpoint=checkpoint,
        data=data,
        limits=limit,
        out=out,
        positions=positions,
        only=only or (),
        keep=keep or (),
        points=points,
        recover=recover,
        epochs=epochs,
        distil_epochs=distil_epochs,
    )
    config = study_of(wish, _overrides(set_ or []), lambda said: print(f"mathnas: {said}", file=sys.stderr))
    where = absolute(str(wish.root))
    if not as_json:
        print("\n".join(positions_in_words(config)))
    for warning in not_handed_over(config):
        print(f"mathnas: {warning}", file=sys.stderr)

    def say(words: str) -> None:
        print(f"mathnas: {words}", file=sys.stderr)

    def planned(config: "StudyConfig") -> dict[str, Any]:  # the preflight: of what is refused nothing is written
        return _planned(config, where, "report", measures=dry_run)

    def ran(config: "StudyConfig") -> "Study":
        with hold(Store(where)):  # before it is written: another driver's file stays as it is
            print(f"Wrote {written(config, wish)}.", file=sys.stderr)
            with never_silent():
                return _run_stages(config, where, None, "report", wait_s=0.0)

    config, found = within_reach(config, where, planned, say)
    if dry_run or not as_json:
        _print_plan(found, as_json)
    if dry_run:
        return
    _, study = within_reach(config, where, ran, say)
    files = hand_over(study, wish.out)
    _print_outcome(study, as_json, None if as_json else result_in_words(study))
    if not as_json:
        print("\n".join(files))


@app.command()
def export(
    root: Root,
    to: Annotated[Path, typer.Option("--to", help="Folder to write.")],
    format_: Annotated[
        str, typer.Option("--format", help="Of safetensors, onnx and pt2, separated by commas.")
    ] = "safetensors,onnx,pt2",
) -> None:
    """Write the winner of a finished study or design as files that load without mathnas, with its model card."""
    need("export", "export")
    from flows.export_command import handed_over
    from nas_core.study.finished import finished
    from nas_core.training.handover import formats_of

    formats = formats_of(format_)
    print("\n".join(handed_over(finished(root), to, formats)))


@app.command()
def measure(
    root: Root,
    to: Annotated[Path | None, typer.Option("--to", help="File to write and carry there, such as measure.pyz.")] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="What it wrote there: measured.csv.")] = None,
    host: Annotated[str | None, typer.Option(help="Machine to do all of it on, over ssh: NAME or USER@NAME.")] = None,
    python: Annotated[str, typer.Option(help="Python on that machine.")] = "python3",
) -> None:
    """Measure a study's latency on another machine: what blocks cost, then the networks chosen."""
    if sum(each is not None for each in (to, from_, host)) != 1:
        raise ConfigError("measure", "none or several of --to, --from and --host", "one of them")
    need("export", "measure")
    from flows.measure_command import bring, over_ssh, write

    study = _open(root)
    if to is not None:
        lines = write(study, to)
    elif from_ is not None:
        lines = bring(study, from_)
    else:
        lines = over_ssh(study, str(host), python)
    print("\n".join(lines))


def _run_stages(config: "StudyConfig", root: str, rerun_from: Stage | None, until: Stage, wait_s: float) -> "Study":
    _quiet_prefect()
    from flows.driving import drive
    from flows.prefect_server import prefect_api
    from flows.preflight import notes
    from tasks.addresses import check_addresses

    check_addresses()
    # prefect reads the address of its server when it is imported
    with drive(config, root, until=until, rerun_from=rerun_from, wait_s=wait_s) as study, prefect_api():
        for note in notes(study, until):
            print(f"mathnas: {note}", file=sys.stderr)
        from flows.study import run_study

        run_study(config, root, rerun_from=rerun_from, until=until)
    return study


@app.command(name="run-design")
def run_design(
    config: Annotated[Path, typer.Argument(help="YAML file of the design (flows/configs/deepmad.yaml is one).")],
    root: Annotated[str | None, typer.Option(help="Folder or URI of the design; default: designs/NAME.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a field, e.g. program.flops=4M.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another driver of the design to end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Design a network by solving its program, train it, register its model: each as far as it is missing."""
    need("run", "run-design")
    from nas_core.base.settings import read_as
    from nas_core.records.store import absolute
    from nas_core.study.analytic_config import AnalyticConfig

    analytic = read_as(AnalyticConfig, config, _overrides(set_ or []))
    where = absolute(root or f"designs/{analytic.name}")
    _quiet_prefect()
    from flows.prefect_server import prefect_api
    from flows.preflight import preflight_design
    from nas_core.records.lease import hold
    from nas_core.records.store import Store, no_empty_folder

    with no_empty_folder(where):
        preflight_design(analytic, where)
    with never_silent(), hold(Store(where), float("inf") if wait else 0.0), prefect_api():
        from flows.designing import design as design_flow

        design_flow(analytic, where)
    _print_design(analytic, where, as_json)


def _print_design(config: "AnalyticConfig", root: str, as_json: bool) -> None:
    from flows.design_command import print_answer
    from nas_core.records.store import Store
    from nas_core.study.analytic_project import DesignProject
    from tasks.embedded_tracking import address

    project = DesignProject(config, Store(root))
    answer, row, runs = project.answer, project.training, project.output(TRACKING)
    assert answer is not None
    assert row is not None
    assert runs is not None
    name, tested, uri = row["metric_name"], row["metrics"]["test"], address(project.store, runs)
    if as_json:
        figures = {key: row[key] for key in ("genotype", "metric_name", "num_test_examples", "wall_s", "device")}
        figures |= {f"test_{key}": value for key, value in tested.items()}
        print_json({**answer, "training": figures, "model": runs["model"], "tracking": uri})
        return
    print_answer(answer)
    print(
        f"test {name.replace('_', ' ')} {tested[name]:.4f} ({row['num_test_examples']:,} examples,",
        f"seed {row['seed']},",
        end=" ",
    )
    print(f"trained {row['wall_s']:.0f} s on {row['device']})")
    print(f"Model: {runs['model']['uri']}")
    _print_tracking(project.store, runs)


def _overrides(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError("--set", repr(text), "field=value, such as seed=3")
        pairs[name.strip()] = value
    return pairs


def _stage(name: str | None, option: str = "stage") -> Stage | None:
    if name is None:
        return None
    for stage in STAGES:
        if stage == name:
            return stage
    raise ConfigError(option, repr(name), f"one of: {', '.join(STAGES)}")


def _quiet_prefect() -> None:
    """Our own progress and messages go to the terminal; Prefect's log goes to its server."""
    import os

    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _open(root: str) -> "Study":
    from nas_core.study.study import Study

    return Study.open(root)


def _say_notices(study: "Study") -> list[str]:
    """What is no longer as the study knew it, on standard error."""
    from nas_core.study.beside import of_another

    found = [*study.notices(), *filter(None, [of_another(study)])]
    _say(*found)
    return found


def _say(*sentences: str) -> None:
    for each in filter(None, sentences):
        print(f"mathnas: {each}", file=sys.stderr)


def _planned(config: "StudyConfig", root: str, until: Stage, measures: bool = True) -> dict[str, Any]:
    from flows.plan import plan

    with never_silent(), doing("checking the study and its data"):
        return plan(config, root, until, measures=measures)


def _print_plan(found: dict[str, Any], as_json: bool) -> None:
    from flows.plan import plan_in_words

    if as_json:
        print_json(found)
    else:
        print(plan_in_words(found))


def _print_outcome(study: "Study", as_json: bool, compared: list[str] | None = None) -> None:
    from nas_core.report.story import limits_measured_whole
    from nas_core.report.text import summary_table

    summary = _summary(study)
    if as_json:
        print_json(summary.to_dict())
        return
    print("\n".join(filter(None, (summary_table(summary, compared), limits_measured_whole(summary)))))
    if study.store.exists(REPORT):
        of_before = "" if study.status_of("report").is_over else "  (of before: stage report has not run since)"
        print(f"Report: {study.store.uri(REPORT)}{of_before}")
    tracking = study.output(TRACKING)
    if tracking is not None:
        _print_tracking(study.store, tracking)


def _print_tracking(store: "Store", runs: dict[str, Any]) -> None:
    """Where MLflow shows the runs: its page opens on something else without being told."""
    from tasks.embedded_tracking import address
    from tasks.tracking import logged_elsewhere

    if said := logged_elsewhere(store, runs):
        print(f"mathnas: {said}", file=sys.stderr)
    uri, page = address(store, runs), runs.get("page", "")  # no page in what earlier versions wrote
    if uri.startswith("http"):
        print(f"MLflow: {uri}/{page}")
    else:
        print(f"MLflow: {uri}  (mlflow ui --backend-store-uri {shlex.quote(uri)})")
        print(f"        then http://127.0.0.1:5000/{page}")


def _summary(study: "Study") -> "StudySummary":
    """What the report says, where it is of the present; else what can be said without one."""
    from nas_core.report.summary import StudySummary

    if study.status_of("report").state == "done":
        with contextlib.suppress(StoreError):  # damaged, or of another version
            return StudySummary.from_dict(study.output(SUMMARY) or {})
    from nas_core.report.collect import summarise

    return summarise(study)


def _run_stage(stage: Stage, root: str, *, retry_failed: bool = False) -> "Study":
    """One stage of a stored study, even where it is done already."""
    need("run", stage)
    _quiet_prefect()
    from flows.driving import drive
    from flows.prefect_server import prefect_api
    from nas_core.records.store import absolute
    from tasks.addresses import check_addresses

    root = absolute(root)
    config, reports = _open(root).config, stage == "report"
    if not reports:  # what is stored can be reported while servers are away
        check_addresses()
    with never_silent(), drive(config, root, until=None if reports else stage) as study, prefect_api():
        from flows.study import FLOWS

        if retry_failed:
            study.forget_failures()
        FLOWS[stage](config, root)
    return study


@app.command()
def profile(
    root: Annotated[str | None, typer.Argument(help="The study's folder; or use --space.")] = None,
    space: Annotated[str | None, typer.Option(help="Registered space, or a YAML file of one, without a study.")] = None,
    genotypes: Annotated[Path | None, typer.Option(help="File with one genotype a line.")] = None,
    resources: Annotated[str, typer.Option(help="Resources to count, separated by commas.")] = "flops,params",
    as_json: AsJson = False,
) -> None:
    """Measure what the blocks of a study cost; or count networks of a space."""
    if (root is None) == (space is None):
        raise ConfigError("profile", "both or neither of DIR and --space", "one of them")
    if space is not None:
        need("networks", "profile --space")
        print_json(_counted(space, genotypes, resources))
        return
    assert root is not None
    _print_status(_run_stage("profile", root), as_json)


def _counted(space: str, genotypes: Path | None, resources: str) -> list[dict[str, Any]]:
    from nas_core.base.settings import parse_as
    from nas_core.costs import count_networks
    from nas_core.families import FAMILIES

    if genotypes is None:
        raise ConfigError("--genotypes", "nothing", "a file with one genotype a line")
    try:
        lines = genotypes.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--genotypes", str(error), "a readable text file") from None
    given = {"file": str(Path(space).absolute())} if space.endswith((".yaml", ".yml")) else {}
    kind = "yaml" if given else space
    family = FAMILIES[kind](parse_as(FAMILIES.section(kind), given, f"--space {space}"))
    known = family.space
    networks = [_network(known, text, f"{genotypes}: line {n}") for n, text in enumerate(lines, 1) if text.strip()]
    return count_networks(family, networks, [name.strip() for name in resources.split(",")])


def _network(space: "SearchSpace", text: str, where: str) -> "Genotype":
    try:
        return space.parse(text)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error.where}", error.found, error.expected, error.advice) from None


@app.command()
def score(
    root: Root,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Evaluate failed networks again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate the networks of the design that are missing."""
    _print_status(_run_stage("score", root, retry_failed=retry_failed), as_json)


def _can_be_written(path: Path | None) -> Path | None:
    """Refuse a file that could not be written after all the compute was spent: one is made, and is gone again."""
    if path is None:
        return path
    from flows.select_command import is_certificate

    try:
        if path.is_fifo():  # opening it would wait for a reader
            raise OSError("it is a pipe")
        is_new = not path.exists()
        if path.is_file() and not is_certificate(path):
            raise ConfigError("--certify", f"{path}, which holds something else", "a name that is free")
        with path.open("a", encoding="utf-8"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        expected = f"a file in a folder that exists, and that can be written ({error.strerror or error})"
        raise ConfigError("--certify", str(path), expected) from None
    return path


@app.command()
def select(
    source: Annotated[str, typer.Argument(help="The study's folder, or a problem's JSON file.")],
    limit: Annotated[
        list[str] | None, typer.Option(help="Such as 'flops<=60%' or 'latency_ms<=12 ms'; repeatable.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, max=MOST_TOP, help="Distinct best networks wanted.")] = None,
    min_distance: Annotated[int | None, typer.Option(min=1, help="Positions in which any two differ at least.")] = None,
    time_limit_s: Annotated[
        float | None,
        typer.Option("--time", min=0.001, help="Solver time limit, seconds; else the study's, of a problem 60."),
    ] = None,
    certify: Annotated[
        Path | None,
        typer.Option(help="Write the proof here, made and checked in as much time again.", callback=_can_be_written),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Select the best networks within limits from what is stored. Evaluates nothing, changes nothing."""
    from flows.select_command import certify_study, progress_line, select_stored_problem
    from nas_core.program.selection import TIME_LIMIT_S

    if source.endswith(".json"):
        asked: dict[str, Any] = {"top": top or 1, "min_distance": min_distance or 1}
        asked["time_limit_s"] = time_limit_s or TIME_LIMIT_S
        select_stored_problem(Path(source), limit or [], **asked, certify=certify, as_json=as_json)
        return
    study = _open(source)
    _say_notices(study)
    config = study.config.select
    limits = config.limits if limit is None else limit
    asked = {
        "top": top or config.top,
        "min_distance": min_distance or config.min_distance,
        "time_limit_s": time_limit_s or config.time_limit_s,
    }
    from nas_core.study.choices import check_distance

    counts = (*study.space.num_choices, len(study.space.resolutions))
    check_distance(counts, asked["top"], asked["min_distance"], "--min-distance")
    with progress_line(asked["top"]) as tell:
        answer = study.select(limits, **asked, tell=tell)
    if as_json:
        print_json(answer.as_dict())
    else:
        _print_answer(answer)
    if certify is not None:
        certify_study(study, limits, certify, **asked, quiet=as_json)
    answer.required()


def _print_answer(answer: "Answer") -> None:
    from nas_core.base.words import aligned
    from nas_core.report.text import format_amount, resource_name

    print("\n".join([answer.message, *answer.notes, *(answer.cautions if answer.selections else ())]))
    if not answer.selections:
        return
    if answer.gap:
        print(f"No network within the limits is predicted beyond {answer.bound:.6g}.")
    resources = list(answer.selections[0].costs)
    rows = [["rank", "network", "predicted", "90 % interval", "evaluated", *map(resource_name, resources)]]
    for rank, choice in enumerate(answer.selections, start=1):
        low, high = choice.interval
        measured = "" if choice.evaluated is None else f"{choice.evaluated:.4f}"
        known = [f"{rank:>4}", choice.genotype, f"{choice.predicted:.4f}", f"{low:.4f} to {high:.4f}", measured]
        rows.append([*known, *(format_amount(name, choice.costs.get(name)) for name in resources)])
    print("\n".join(aligned(rows)))
    if answer.winner is not None:
        winner = answer.winner
        print(f"Ranked by prediction. {winner.sentence[:-1]}: predicted {winner.predicted:.4f}", end="")
        print("." if winner.evaluated is None else f", evaluated {winner.evaluated:.4f}.")


@app.command()
def verify(root: Root, as_json: AsJson = False) -> None:
    """Evaluate the best networks for real, refit, solve again, until the choice stands."""
    _print_status(_run_stage("verify", root), as_json)


@app.command()
def train(root: Root, as_json: AsJson = False) -> None:
    """Train the winner with the full recipe, and what it is compared with."""
    _print_status(_run_stage("train", root), as_json)


@app.command()
def report(root: Root, as_json: AsJson = False) -> None:
    """Log the study to MLflow and write the report."""
    _say_notices(_open(root))
    _print_outcome(_run_stage("report", root), as_json)


@app.command()
def status(root: Root, as_json: AsJson = False) -> None:
    """Say how far every stage of a study, or a design, is."""
    from nas_core.records.store import Store

    store = Store(root, create=False)
    if store.exists(DESIGN_CONFIG):
        _print_design_status(root, as_json)
    else:
        _print_status(_open(root), as_json)
    _settle(store)


def _settle(store: "Store") -> None:
    """A study that was moved or copied has MLflow's places set right, where it may be written; what fails is said."""
    from tasks.embedded_tracking import can_be_settled, settle

    try:
        if can_be_settled(store) and settle(store):
            print("mathnas: MLflow's places of artifacts were set to where the study is now", file=sys.stderr)
    except StoreError as error:
        print(f"mathnas: {error}", file=sys.stderr)


def _print_design_status(root: str, as_json: bool) -> None:
    from nas_core.records.lease import driver
    from nas_core.study.analytic_project import DesignProject

    project = DesignProject.open(root)
    states, holder = project.status(), driver(project.store)
    if as_json:
        print_json({"stages": states, "driver": str(holder) if holder else None})
        return
    for name, state in states.items():
        print(f"{name:<8} {state}")
    if holder is not None:
        print(f"driven by {holder}")


def _print_status(study: "Study", as_json: bool) -> None:
    from nas_core.records.lease import driver

    stages, said = study.status(), _say_notices(study)
    quarantined, holder = study.store.quarantined(), driver(study.store)
    if as_json:
        rows = {
            stage: {"state": row.state, "done": row.done, "total": row.total, "failed": row.failed}
            for stage, row in stages.items()
        }
        outcome = study.outcome() if stages["select"].state == "done" else None
        found = {"quarantined": quarantined, "driver": str(holder) if holder else None, "notices": said}
        print_json({"stages": rows, **found, "outcome": outcome and outcome.as_dict()})
        return
    for stage, row in stages.items():
        failed = f", {row.failed} failed" if row.failed else ""
        total = row.total or "?"  # how many networks are scored, profile tells
        print(f"{stage:<8} {row.state:<8} {row.done}/{total}{failed}")
    if stages["select"].state == "done" and (outcome := study.outcome()) is not None:
        from nas_core.report.text import outcome_lines

        print("\n".join(outcome_lines(outcome, study.scorer.measure)))
    if holder is not None:
        print(f"driven by {holder}")
    for path in quarantined:
        print(f"damaged part set aside: {path}")


@app.command()
def automations(
    folder: Annotated[Path, typer.Argument(help="Folder of automations in YAML.")] = Path("infra/automations"),
) -> None:
    """Make the automations of a folder on the Prefect server; MATHNAS_WEBHOOK_URL is told when a study ends."""
    need("run", "automations")
    from flows.automations import make_automations

    for name in make_automations(folder):
        print(f"automation: {name}")


@app.command()
def serve(
    root: Annotated[str, typer.Option(help="Folder or URI under which studies are kept.")] = "studies",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's page, if none is configured.")] = 4200,
    limit: Annotated[int, typer.Option(min=1, help="Studies that run at a time; others wait.")] = 1,
) -> None:
    """Trigger studies from Prefect's page: starts a server on 127.0.0.1 unless PREFECT_API_URL names one."""
    need("run", "serve")
    from flows.serve_command import serve_flows

    serve_flows(root, port, limit)


app.command(name="design")(design)
app.command(name="plugins")(plugins)
app.command(name="check")(check)


if __name__ == "__main__":
    main()
