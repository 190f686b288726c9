"""`mathnas export`: the winner's files and their card, from a study or a design that is finished."""

import itertools
import re
import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from flows.export_command import handed_over
from flows.shrink_command import hand_over, not_handed_over
from nas_core.base.errors import ConfigError, StoreError
from nas_core.costs import ProfileConfig
from nas_core.costs.profiler import Measurement
from nas_core.families.model.rebuild import factory_of
from nas_core.report.text import format_metric
from nas_core.study.as_given import as_given, measure_as_given
from nas_core.study.brought import workload_of
from nas_core.study.contestants import contest, trainings
from nas_core.study.finished import file_latency, finished, weights_latency
from nas_core.study.study import Study
from nas_core.training.handover import FORMATS, onnx_file
from nas_core.training.winner import load_deployed
from tasks.selection import select
from tasks.worker import Evaluator, prepare_job, profile_job, study_job, train_job
from tests.command import mathnas, refused
from tests.conftest import config_of

LIBRARY = [{"kind": "linear"}, {"kind": "skip"}]
RECIPE = {"epochs": 1, "batch_size": 64, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.0, "augment": "none"}
MODEL = "nas_core.testing.example_model:small_network"
MODEL_SPACE = {"kind": "model", "model": MODEL, "library": LIBRARY, "wanted": 3}
SCORER = {"kind": "distil", "train": False, "samples": 64, "calibration_examples": 64, "recipe": RECIPE}


def model_config(**sections):
    return config_of(
        name="shrunk",
        space=MODEL_SPACE,
        scorer={**SCORER, "recovery_steps": 2, "final_steps": 4},
        design={"kind": "one-swap", "held_out": 0},
        profile={"resources": ["flops", "params", "latency_ms"], "networks": 0, "repeats": 5, "warmup": 1},
        select={"limits": ["latency_ms<=500%", "flops<=90%"]},
        train={"recipe": RECIPE, "train_examples": 256, "compare_random": 0},
        **sections,
    )


def run_here(config, root):
    """The study as far as it needs neither Ray nor Prefect: measured, scored, selected, trained."""
    study, quiet = Study.create(config, str(root)), lambda *_: None
    job = study_job(study)
    profile_job(job, list(study.profiler_ids), [], quiet)
    prepare_job(job, (), quiet)
    Evaluator(job).run([str(each) for each in study.design.genotypes])
    study.refresh()
    select.fn(study)
    rows = []
    found = contest(study.snapshot, study.winner, study.points())
    for training in trainings(study.snapshot, found.candidates):
        item = training.candidate
        costs = study.costs_of(study.space.parse(item.genotype))
        rows.append({"role": item.role, "costs": costs, **train_job(job, training, quiet)})
    study.outputs.write("training.json", {"inputs": study.inputs_of("train"), "networks": rows})
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A model made faster, trained; nothing changes it."""
    return run_here(model_config(), tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    """The folder and what was said of it."""
    folder = tmp_path_factory.mktemp("out")
    return folder, hand_over(study, folder)


def test_all_files_are_there_and_how_to_load_them_is_said(written):
    folder, lines = written
    files = {"model.safetensors", "architecture.json", "model.onnx", "model.pt2", "load.py", "README.md"}
    assert {path.name for path in folder.iterdir()} == files
    said = "\n".join(lines)
    for name in ("model.onnx", "model.pt2", "load.py"):
        assert re.search(rf"^{re.escape(name)}: .*load|^{re.escape(name)}: .*InferenceSession", said, re.MULTILINE), (
            name
        )
    assert "model.onnx agrees with torch on 360 test examples" in said


def test_the_limit_is_looked_at_on_the_file(written):
    said = "\n".join(written[1])
    assert re.search(r"model\.onnx takes [\d.]+ (µs|ms) \(median of 10 times; .*, onnxruntime\)?\.", said), said
    assert re.search(r"model\.safetensors takes [\d.]+ (µs|ms) \(median of 10 times; .*, torch\)?\.", said), said
    assert (
        len(re.findall(r"The base network's, in turns with it: [\d.]+ (?:µs|ms); this one takes [\d.]+ %", said)) == 2
    )
    assert "The limit latency_ms<=500% holds on model.safetensors in 10 of 10 times." in said  # torch runs the study's
    assert "holds on model.onnx" not in said
    assert "flops" not in said


def test_limits_are_counted_run_by_run(study):
    done = finished(study.store.root)
    onnx = onnx_file(load_deployed(study.store, "winner")[0], "trace")
    found = file_latency(done, onnx, "trace", times=2)
    assert (len(found.winner_ms), len(found.base_ms)) == (2, 2)
    assert found.kept == {"latency_ms<=500%": 2}


def test_a_time_in_which_something_else_took_the_machine_is_measured_again(study, monkeypatch):
    done, calls = finished(study.store.root), []
    taken = [(1.0, 2.0), (1.05, 2.0), (1.0, 2.5), (1.0, 2.0), (1.0, 2.1)]  # the third is disturbed

    def time_files(files, *_):
        calls.append(files)
        return [Measurement(value=ms) for ms in taken[len(calls) - 1]]

    monkeypatch.setattr("nas_core.costs.timing.time_files", time_files)
    onnx = onnx_file(load_deployed(study.store, "winner")[0], "trace")
    found = file_latency(done, onnx, "trace", times=4)
    assert (found.winner_ms, found.base_ms) == ((1.0, 1.05, 1.0, 1.0), (2.0, 2.0, 2.1, 2.0))


def test_what_torch_runs_is_measured_as_it_is_loaded_from_its_weights(study):
    found = weights_latency(finished(study.store.root), times=2)
    assert (found.file, len(found.winner_ms), len(found.base_ms)) == ("model.safetensors", 2, 2)
    assert found.kept == {"latency_ms<=500%": 2}


def test_the_card_has_every_number(study, written):
    text = (written[0] / "README.md").read_text()
    row = finished(study.store.root).winner
    for name, value in row["metrics"]["test"].items():
        assert format_metric(study.scorer.workload.metrics[name], value) in text
    for expected in (row["genotype"], "latency_ms<=500%", "fractions from 0 to 1", MODEL, "torch 2.", "Use", "seed 0"):
        assert expected in text, expected


def test_the_onnx_file_takes_what_the_card_says(study, written):
    images = finished(study.store.root).workload.load().load_test()[0][:7]
    session = onnxruntime.InferenceSession(written[0] / "model.onnx")
    outputs = session.run(None, {"inputs": images.numpy() / np.float32(255)})[0]
    with torch.no_grad():
        expected = load_deployed(study.store, "winner")[0](images)
    assert np.abs(outputs - expected.numpy()).max() < 1e-5


def test_the_command_writes_the_formats_asked_for(study, tmp_path):
    done = mathnas("export", study.store.root, "--to", tmp_path / "out", "--format", "safetensors")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "architecture.json", "load.py", "README.md"}
    assert "model.onnx" not in done.stdout
    (tmp_path / "file").write_text("")
    assert "a folder that can be written" in refused("export", study.store.root, "--to", tmp_path / "file")
    assert "found 'tflite'" in refused("export", study.store.root, "--to", tmp_path, "--format", "tflite")


def test_a_folder_that_cannot_be_written_is_said_before_files_are_made(study, tmp_path, monkeypatch):
    def made(*_):
        raise AssertionError("files were made")

    monkeypatch.setattr("nas_core.training.handover.files_of", made)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ConfigError, match="expected a folder that can be written"):
            handed_over(finished(study.store.root), folder, FORMATS)
    with pytest.raises(AssertionError, match="files were made"):
        handed_over(finished(study.store.root), tmp_path / "new" / "inside", FORMATS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # looking left nothing behind


def test_how_good_the_model_was_as_it_was_given_is_told(study, tmp_path):
    measured = measure_as_given(study)  # as the report's stage does
    handed_over(finished(study.store.root), tmp_path, ["safetensors"])
    splits = workload_of(study.config).load(study.family.sample.shape)
    inputs, targets = splits.load_test()
    with torch.no_grad():
        outputs = study.family.teacher(splits.prepare(inputs))
    share = float((outputs.argmax(1) == targets).double().mean())
    assert measured == as_given(study)
    assert measured["accuracy"] == pytest.approx(share, abs=1e-9)
    assert f"| the model as it was given | {100 * share:.2f} % |" in (tmp_path / "README.md").read_text()
    other = study.config.model_copy(update={"metric": "macro_f1"})
    assert as_given(Study(other, study.store, study.sources)) == {}


@pytest.mark.parametrize(
    "formats", [each for number in (1, 2) for each in itertools.combinations(FORMATS, number)], ids=",".join
)
def test_only_what_is_there_is_spoken_of(study, tmp_path, formats):
    lines = handed_over(finished(study.store.root), tmp_path, formats)
    text = "\n".join([*lines, *(tmp_path / "README.md").read_text().splitlines()])
    there = {path.name for path in tmp_path.iterdir()}
    spoken_of = set(re.findall(r"model\.\w+|load\.py", text.replace("there is no model.onnx", "")))
    assert spoken_of == there - {"architecture.json", "README.md"}
    assert ("load.py" in there) == (formats != ("onnx",))  # it makes the network and reads its weights, or the program
    assert "holds on model.onnx" not in text  # the limit is for what torch runs


def test_what_is_not_trained_cannot_be_exported(tmp_path):
    with pytest.raises(StoreError, match="no study"):
        finished(str(tmp_path))
    Study.create(model_config(), str(tmp_path / "new"))
    message = refused("export", tmp_path / "new", "--to", tmp_path / "out")
    assert "found no trained winner" in message
    assert not (tmp_path / "out").exists()


def changed(data):
    return data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]


@pytest.mark.situations
@pytest.mark.parametrize(
    ("name", "damage", "found"),
    [
        ("weights.safetensors", changed, "other bytes than were trained"),
        ("program.pt2", lambda data: data[:1000], "other bytes than were trained"),
        *((name, None, "no such file") for name in ("weights.safetensors", "program.pt2", "architecture.json")),
    ],
)
def test_what_is_not_as_it_was_trained_is_not_handed_over(study, tmp_path, name, damage, found):
    root = shutil.copytree(study.store.root, tmp_path / "study")
    path = root / "winner" / "winner" / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    message = refused("export", root, "--to", tmp_path / "out")
    assert message.startswith(f"mathnas: {path}: found {found}, expected ")
    assert "`mathnas run` with `--from train` trains it again" in message
    assert not (tmp_path / "out").exists()


class _Unknown(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x[:, 0]).real + x.mean((1, 2, 3))[:, None]


def test_a_model_that_onnx_cannot_hold_is_said_before_anything_is_trained(study, monkeypatch):
    config = model_config()
    assert not_handed_over(config) == []
    monkeypatch.setattr(type(study.family), "module", lambda *_: _Unknown())
    (line,) = not_handed_over(config)
    assert re.fullmatch(r"no model\.onnx will be written: the operator aten\S+", line)
    config = config.model_copy(update={"profile": ProfileConfig(runtime="onnxruntime")})
    with pytest.raises(ConfigError, match=r"latency\.runtime: found onnxruntime, and the operator aten"):
        not_handed_over(config)


def test_formats_are_those_of_the_options_default():
    assert ",".join(FORMATS) in mathnas("export", "--help").stdout


MINE = """
from torch import nn
from parts import Block

def build():
    layers = [nn.Conv2d(3, 16, 3, padding=1), Block(16), Block(16), Block(16)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
"""
BLOCKS = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, images):
        return images + self.body(images)
"""


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A study of a model of colour images and gray data, whose model is gone."""
    place = tmp_path_factory.mktemp("mine")
    (place / "mine.py").write_text(MINE)
    (place / "parts.py").write_text(BLOCKS)
    torch.save(factory_of(f"{place}/mine.py:build")().state_dict(), place / "mine.pth")
    config = model_config()
    space = {"model": f"{place}/mine.py:build", "checkpoint": str(place / "mine.pth"), "in_channels": 3}
    study = run_here(config.model_copy(update={"space": config.space.model_copy(update=space)}), place / "study")
    for gone in ("mine.py", "parts.py", "mine.pth"):
        (place / gone).unlink()
    return study


def test_a_study_is_handed_over_when_its_model_is_gone(carried, tmp_path):
    done = mathnas("export", carried.store.root, "--to", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "source").iterdir()} == {"mine.py", "parts.py"}
    assert "model.onnx agrees with torch on 360 test examples" in done.stdout
    assert "The base network's, in turns with it" in done.stdout


def test_gray_images_reach_a_model_of_colour_ones(carried):
    network, test = carried.winner_module(), finished(carried.store.root).workload.load((3, 8, 8)).load_test()
    assert network.input_shape == (3, 8, 8)
    assert test[0].shape[1] == 3
    accuracy = (network(test[0]).argmax(1) == test[1]).float().mean().item()
    assert accuracy == pytest.approx(finished(carried.store.root).winner["metrics"]["test"]["accuracy"], abs=1e-6)
