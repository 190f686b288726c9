"""Latency measured on another machine, by one file that needs nothing of ours."""

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from flows.measure_command import bring, elsewhere, over_ssh, write
from nas_core.base.errors import ClusterError, ConfigError, NasError
from nas_core.costs import measure_files
from nas_core.costs.carried import packed
from nas_core.space.genotypes import Genotype
from nas_core.study.profiled import is_profiled
from nas_core.study.rounds import AIMS_AT, finalists
from nas_core.study.stages import VERIFICATION, record_path
from nas_core.study.study import Study
from tasks.profiling import profile, to_time_whole
from tasks.worker import profile_job, study_job
from tests.conftest import config_of

NEEDS = ("numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google", "packaging")


def study_at(root, runtime="onnxruntime", networks=3):
    config = config_of(
        profile={
            "resources": ["flops", "params", "latency_ms"],
            "networks": networks,
            "repeats": 5,
            "warmup": 1,
            "profilers": {"latency": {"where": "elsewhere", "runtime": runtime}},
        },
        select={"limits": ["latency_ms<=90%"]},
    )
    study = Study.create(config, str(root))
    profile_job(study_job(study), ["flops", "params"], [], lambda *_: None)
    study.refresh()
    return study


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with numpy and ONNX Runtime only, as the one place that Python imports packages from."""
    folder = tmp_path_factory.mktemp("bare")
    site = Path(importlib.util.find_spec("numpy").submodule_search_locations[0]).parent
    for name in NEEDS:
        if (site / name).exists():
            (folder / name).symlink_to(site / name)
    return folder


def run_there(bare, file, folder):
    """The file in an isolated Python; returns what it wrote."""
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(bare)!r}); sys.argv = [{str(file)!r}]; "
        f"runpy.run_path({str(file)!r}, run_name='__main__'); assert not {{'torch', 'nas_core'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=folder, capture_output=True, text=True)
    return folder / "measured.csv"


@pytest.fixture(scope="module")
def measured(tmp_path_factory, bare):
    """A study whose blocks were measured elsewhere, and what came back; nothing changes them."""
    folder = tmp_path_factory.mktemp("measured")
    study = study_at(folder / "study")
    lines = write(study, folder / "measure.pyz")
    assert "mathnas measure" in lines[-1]
    return study, run_there(bare, folder / "measure.pyz", folder), bring(study, folder / "measured.csv")


def test_the_file_measures_whole_networks_and_blocks_get_their_price(measured):
    study, file, said = measured
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert {row["status"] for row in rows} == {"ok"}
    assert rows[0]["genotype"] == "0-0-0"
    assert f"{len(rows)} networks measured on {rows[0]['device']}: 9 blocks have their price." == said[0]
    assert rows[0]["device"].endswith(", onnxruntime")
    assert {cost.device for cost in study.costs("latency_ms")} == {rows[0]["device"]}
    assert is_profiled(study.snapshot, "latency_ms")
    (at_most,) = study.budgets(["latency_ms<=90%"])
    assert at_most.at_most == pytest.approx(0.9 * study.costs_of(study.base)["latency_ms"])
    total = study.cost_tables[None]["latency_ms"].total(Genotype.parse(rows[0]["genotype"]))
    assert total > 0


@pytest.mark.parametrize("networks", [3, 27])
def test_networks_that_say_whether_costs_add_up_say_what_blocks_cost_too(measured, tmp_path, networks):
    """Of a small space they are nearly all that was measured."""
    _, file, _ = measured
    study = study_at(tmp_path / "study", networks=networks)
    there = elsewhere(study)
    known, prices = next(csv.DictReader(io.StringIO(file.read_text()))), ((2, 1, 0), (0, 3, 5), (1, 0, 4))
    lines = io.StringIO()
    table = csv.DictWriter(lines, known)
    table.writeheader()
    for genotype in there.networks():
        ms = 1 + sum(row[choice] for row, choice in zip(prices, genotype.choices, strict=True))
        table.writerow({**known, "asked": there.asked, "genotype": str(genotype), "ms": ms})
    (tmp_path / "there.csv").write_text(lines.getvalue())
    bring(study, tmp_path / "there.csv")
    assert study.cost_tables[None]["latency_ms"].fixed == pytest.approx(1, rel=1e-3)
    for row, block in zip(prices, study.cost_tables[None]["latency_ms"].block, strict=True):
        assert list(block) == pytest.approx(row, abs=1e-2)


def test_other_prices_than_those_of_the_choice_ask_for_another_choice(measured, tmp_path):
    _, file, _ = measured
    study = study_at(tmp_path / "study")
    bring(study, file)
    record = {"rounds": [], "winner": "1-1-1", "winner_metric": 0.5, "stands": True}
    study.outputs.write(VERIFICATION, {"inputs": study.inputs_of("verify"), **record})
    assert "chooses again" not in bring(study, file)[0]
    assert study.output(VERIFICATION)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    rows[1]["ms"] = str(3 * float(rows[1]["ms"]))
    with (tmp_path / "other.csv").open("w") as other:
        table = csv.DictWriter(other, rows[0])
        table.writeheader()
        table.writerows(rows)
    assert "chooses again" in bring(study, tmp_path / "other.csv")[0]
    assert not study.store.exists(VERIFICATION)


def test_nothing_of_it_is_measured_here(measured):
    study, _, _ = measured
    assert profile.fn(study, ["latency_ms"]) == 0
    assert to_time_whole(study)[0] == []


def test_measurements_of_another_study_and_other_files_are_refused(measured, tmp_path):
    study, file, _ = measured
    other = study_at(tmp_path / "other", runtime="eager")
    with pytest.raises(ConfigError, match="measurements for another"):
        bring(other, file)
    (tmp_path / "some.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="the columns asked, purpose"):
        bring(study, tmp_path / "some.csv")
    with pytest.raises(ConfigError, match="the file that was written there"):
        bring(study, tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: -len(text.splitlines()[-1]) // 2], "a row that is cut off"),
        (lambda text: "".join(text.splitlines(True)[:-8]), r"no row of \d+ networks, such as"),
        (lambda text: text.replace(",blocks,", ",whole,", 1), "purpose blocks, whole"),
        (lambda text: text.replace(",blocks,", ",other,"), "purpose other"),
        (lambda text: with_ms(text, "nan"), "nan ms, .* times above 0"),
        (lambda text: with_ms(text, "inf"), "inf ms"),
        (lambda text: with_ms(text, "-1"), "-1 ms"),
        (lambda text: text + "x" * 200_000, "field larger than"),
        (lambda text: text + text.splitlines(True)[-1], r"\d+ rows of \d+ networks"),
        (lambda text: text.replace(",0-0-0,ok,", ",0-0-0,failed,", 1), "the base network failed there: status failed"),
        (lambda text: text.replace("spread_ms", "spread", 1), "rows without spread_ms,"),
        (lambda text: text.replace(",0-0-0,ok,", ",1999-2-1,ok,", 1), "genotypes as the file writes them"),
        (
            lambda text: with_all(text, batch_size=8),
            "batch_size 8, num_threads 1, expected batch_size 1, num_threads 1",
        ),
        (lambda text: with_all(text, num_threads=4), "num_threads 4, expected batch_size 1, num_threads 1"),
        (lambda text: with_all(text, ms="0,04"), "could not convert"),  # which may be 40 milliseconds
    ],
)
def test_what_was_cut_off_or_changed_is_refused(measured, tmp_path, change, words):
    study, file, _ = measured
    (tmp_path / "some.csv").write_text(change(file.read_text()))
    with pytest.raises(ConfigError, match=f"some.csv: found .*{words}"):
        bring(study, tmp_path / "some.csv")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_may_save_it_with_other_delimiters(measured, tmp_path, delimiter):
    _, file, said = measured
    rows = list(csv.reader(io.StringIO(file.read_text())))
    with (tmp_path / "some.csv").open("w") as other:
        csv.writer(other, delimiter=delimiter).writerows(rows)
    assert bring(study_at(tmp_path / "study"), tmp_path / "some.csv") == said


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_may_save_decimal_commas_with_other_delimiters(measured, tmp_path, delimiter):
    _, file, said = measured
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    with (tmp_path / "some.csv").open("w") as other:
        table = csv.DictWriter(other, rows[0], delimiter=delimiter)
        table.writeheader()
        table.writerows({**row, **{each: row[each].replace(".", ",") for each in ("ms", "spread_ms")}} for row in rows)
    study = study_at(tmp_path / "study")
    assert bring(study, tmp_path / "some.csv") == said
    brought = elsewhere(study).read((tmp_path / "some.csv").read_text(), "some.csv")
    assert [each.value for each in brought.networks.values()] == [float(row["ms"]) for row in rows]


def test_what_is_missing_there_is_said_and_the_base_has_one_row(tmp_path, bare):
    """Of several groups, too, each of which times the base."""
    study, site = study_at(tmp_path / "study", networks=27), tmp_path / "site"
    write(study, tmp_path / "measure.pyz")
    site.mkdir()
    for each in bare.iterdir():
        if each.name != "onnxruntime":
            (site / each.name).symlink_to(each)
    file = run_there(site, tmp_path / "measure.pyz", tmp_path)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) > measure_files.AT_ONCE + 1
    assert [row["genotype"] for row in rows] == [str(each) for each in elsewhere(study).networks()]
    with pytest.raises(ConfigError, match=r"found onnxruntime is missing there, .* `--python`"):
        elsewhere(study).read(file.read_text(), "measured.csv")


def test_where_the_base_failed_in_the_first_group_only_it_has_one_row(tmp_path, monkeypatch):
    study = study_at(tmp_path / "study", networks=27)
    write(study, tmp_path / "measure.pyz")
    sessions = measure_files.in_sessions

    def failing(groups, repeats):
        first, second = sessions(groups, repeats)
        return [[RuntimeError("no memory"), *first[1:]], second]

    monkeypatch.setattr(measure_files, "in_sessions", failing)
    with zipfile.ZipFile(tmp_path / "measure.pyz") as archive:
        asked = json.loads(archive.read(measure_files.MANIFEST))
        rows = list(measure_files.measured(archive, {**asked, "provider": measure_files.CPU}))
    assert [row["genotype"] for row in rows] == [each["genotype"] for each in asked["networks"]]
    assert {row["status"] for row in rows} == {"ok"}


def with_ms(text, ms):
    """Where every network takes so long."""
    return with_all(text, ms=ms)


def with_all(text, **same):
    """Where every row says the same."""
    rows = list(csv.DictReader(io.StringIO(text)))
    changed = io.StringIO()
    writer = csv.DictWriter(changed, rows[0])
    writer.writeheader()
    writer.writerows({**row, **same} for row in rows)
    return changed.getvalue()


def test_networks_measured_whole_where_none_is_chosen_are_refused(measured, tmp_path):
    study, file, _ = measured
    (tmp_path / "whole.csv").write_text(file.read_text().replace(",blocks,", ",whole,"))
    with pytest.raises(NasError, match="found no chosen network"):
        bring(study, tmp_path / "whole.csv")
    assert study.output(VERIFICATION) is None


def test_what_is_no_file_to_write_and_no_machine_is_said_before_networks_are_packed(measured, tmp_path, capsys):
    study, _, _ = measured
    with pytest.raises(ConfigError, match="found a folder"):
        write(study, tmp_path)
    for host in ("", "-oProxyCommand=x", "a/b", "a:22", "a b"):
        with pytest.raises(ConfigError, match="--host: found"):
            over_ssh(study, host, "python3")
    assert capsys.readouterr().err == ""


def test_a_study_that_waits_for_measurements_says_what_to_do(tmp_path):
    study = study_at(tmp_path)
    with pytest.raises(ConfigError, match=r"no latency_ms from the machine that measures it.*mathnas measure .* --to"):
        profile.fn(study, ["flops", "latency_ms"])


def test_a_study_that_is_measured_here_has_nothing_to_carry(tmp_path):
    study = Study.create(config_of(), str(tmp_path))
    with pytest.raises(ConfigError, match=r"profilers\.latency\.where: found here"):
        write(study, tmp_path / "measure.pyz")


WRONG_WHOLES = {
    "all failed": "the base network failed there",
    "the chosen one failed": "it failed: no memory, expected what the chosen network takes",
    "cut off": "no row of the chosen network, .*, expected what the chosen network takes",
    "without the base": "no row of the base network",
}
WRONG_CHANGES = {
    "all failed": lambda rows: [row.replace(",ok,", ",failed,") for row in rows],
    "the chosen one failed": lambda rows: [
        rows[0],
        rows[1].replace(",ok,", ",failed,").replace('",\n', '",no memory\n'),
    ],
    "cut off": lambda rows: rows[:1],
    "without the base": lambda rows: rows[1:],
}


def test_the_chosen_network_over_its_limit_is_chosen_again(measured, tmp_path):
    study = study_at(tmp_path)
    bring(study, measured[1])
    with pytest.raises(NasError, match="nothing is to be"):
        write(study, tmp_path / "measure.pyz")
    winner = "0-0-0" if str(study.base) != "0-0-0" else "1-1-1"
    record = {"inputs": study.inputs_of("verify"), "rounds": [], "winner": winner, "winner_metric": 0.5, "stands": True}
    study.outputs.write(VERIFICATION, record)
    asked = elsewhere(study)
    assert (asked.purpose, asked.networks()) == ("whole", [study.base, Genotype.parse(winner)])
    head = "asked,purpose,batch_size,num_threads,genotype,status,ms,spread_ms,repeats,device,message\n"
    rows = (
        f'{asked.asked},whole,1,1,{network},ok,{ms},0.1,5,"{device_of(study)}",\n'
        for network, ms in ((study.base, 10), (winner, 12))
    )
    rows = list(rows)
    for wrong, said in WRONG_WHOLES.items():
        (tmp_path / "whole.csv").write_text(head + "".join(WRONG_CHANGES[wrong](rows)))
        with pytest.raises(NasError, match=said):
            bring(study, tmp_path / "whole.csv")
        assert "whole" not in study.output(VERIFICATION)
    (tmp_path / "whole.csv").write_text(head + "".join(rows), encoding="utf-8-sig")  # as a spreadsheet saves it
    study.outputs.write(record_path("report"), {"inputs": "of what was known then"})
    summed = study.costs_of(Genotype.parse(winner))["latency_ms"] / study.costs_of(study.base)["latency_ms"]
    assert "the limit moves" in bring(study, tmp_path / "whole.csv")[0]
    assert dict(study.snapshot.held)["latency_ms"] == pytest.approx(AIMS_AT * min(summed, 0.9) / 1.2)
    assert {row["device"] for row in study.output(VERIFICATION)["whole"]} == {device_of(study)}
    assert not study.store.exists(record_path("report"))  # the page does not show them yet
    (tmp_path / "whole.csv").write_text(head + rows[0] + rows[1].replace(",ok,12,", ",ok,8.6,"))  # it was a mistake
    assert bring(study, tmp_path / "whole.csv")[0].endswith(f"the chosen one, {winner}, is within the limits.")
    assert dict(study.snapshot.held) == {}


def device_of(study):
    """What the blocks were measured on."""
    return study.costs("latency_ms")[0].device


def test_whole_networks_of_another_device_than_the_blocks_are_refused(measured, tmp_path):
    study = study_at(tmp_path)
    bring(study, measured[1])
    study.outputs.write(
        VERIFICATION,
        {"inputs": study.inputs_of("verify"), "rounds": [], "winner": "1-1-1", "winner_metric": 0.5, "stands": True},
    )
    text = measured[1].read_text().replace(",blocks,", ",whole,").replace(device_of(study), "a phone, onnxruntime")
    (tmp_path / "whole.csv").write_text(text)
    words = f"found device a phone, onnxruntime, expected device {re.escape(device_of(study))}, which the blocks"
    with pytest.raises(ConfigError, match=words):
        bring(study, tmp_path / "whole.csv")
    assert "whole" not in study.output(VERIFICATION)


def test_a_cut_file_of_the_best_networks_is_refused(measured, tmp_path):
    study = study_at(tmp_path)
    bring(study, measured[1])
    rows = [study.scorer.rows.ok(each, 0.5, 10, 0.1) for each in study.space.genotypes()]
    study.store.add_evaluations(rows)
    study.refresh()
    best = finalists(study.snapshot)
    record = {"rounds": [], "winner": str(best[0]), "winner_metric": 0.5, "stands": True}
    study.outputs.write(VERIFICATION, {"inputs": study.inputs_of("verify"), **record})
    head = "asked,purpose,batch_size,num_threads,genotype,status,ms,spread_ms,repeats,device,message\n"
    lines = [
        f'{elsewhere(study).asked},whole,1,1,{network},ok,{ms},0.1,5,"{device_of(study)}",\n'
        for network, ms in ((study.base, 10), *((each, 8.6) for each in best))
    ]
    for kept, said in ((2, f"no row of {len(best) - 1} of the best networks, such as {best[1]}"), (len(lines), "")):
        (tmp_path / "whole.csv").write_text(head + "".join(lines[:kept]))
        with pytest.raises(NasError, match=said) if said else nullcontext():
            assert f"measured whole on {device_of(study)}" in bring(study, tmp_path / "whole.csv")[0]


def test_over_ssh_the_file_goes_there_and_the_numbers_come_back(measured, bare, tmp_path, monkeypatch):
    """ssh is the user's own; here it leads to a folder of this machine, and breaks off after the last word."""
    there, programs = tmp_path / "there", tmp_path / "programs"
    there.mkdir()
    programs.mkdir()
    for name in ("scp", "sftp"):  # which not every machine has a server for
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
    (programs / "ssh").write_text(
        f'#!/bin/sh\n[ "$1" = phone ] || exit 255\ncd "{there}" && PYTHONPATH="{bare}" sh -c "$2"\n'
        'code=$?; case "$2" in rm*) exit 255;; esac; exit $code\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    study = study_at(tmp_path / "study")
    (said,) = over_ssh(study, "phone", f"{sys.executable} -S")
    assert "9 blocks have their price" in said
    assert list(there.iterdir()) == []
    again = study_at(tmp_path / "again")
    with pytest.raises(
        ClusterError, match="--host other: found ssh ended with 255, expected a machine that ssh reaches"
    ):
        over_ssh(again, "other", "python3")
    with pytest.raises(ClusterError, match=r"--host phone: found `python2 .* ended with 127 there, .* --python"):
        over_ssh(again, "phone", "python2")
    assert list(there.iterdir()) == []


def test_programs_are_run_by_torch(tmp_path):
    study = study_at(tmp_path / "study", runtime="eager")
    settings = study.config.profile.profilers["latency"]
    about = {"asked": elsewhere(study).asked, "purpose": "whole"}
    data = packed(study.family, [Genotype((0, 0, 0)), Genotype((1, 1, 1))], settings, about, lambda *_: None)
    (tmp_path / "measure.pyz").write_bytes(data)
    subprocess.run([sys.executable, "measure.pyz", "--device", "a box"], check=True, cwd=tmp_path, capture_output=True)
    found = elsewhere(study).read((tmp_path / "measured.csv").read_text(), "measured.csv")
    assert found.device == "a box, eager"
    assert [each.value > 0 for each in found.networks.values()] == [True, True]
