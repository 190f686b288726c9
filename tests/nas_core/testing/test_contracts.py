"""Every class of our own keeps the promises of its protocol, as `mathnas check` asks them of a plug-in's."""

from pathlib import Path

import pytest
import torch

import nas_core.study.config  # noqa: F401 (registers our own)
from nas_core import Sample, dataset_workload, resource, scorer
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.costs import PROFILERS
from nas_core.families.blocks import BLOCKS
from nas_core.families.model.alternatives import ALTERNATIVES, Alternative
from nas_core.scoring import SCORERS, Scorer
from nas_core.testing import check, registries
from nas_core.testing.contracts import CONTRACTS
from nas_core.workloads import WORKLOADS
from nas_core.workloads.regression import REGRESSION
from tests.real_images import write_image_table, write_pairs

EXAMPLE_SPACE = Path(__file__).parents[3] / "flows/configs/space-example.yaml"
OF_FILES = ("image-table", "rows", "segmentation", "image-to-image")
NEEDS_FILES = {
    ("workload", "folder"),
    *(("workload", name) for name in OF_FILES),
    ("workload", "parquet"),
    ("workload", "timm"),
    ("workload", "webdataset"),
    ("workload", "cifar10"),
    ("workload", "fashion-mnist"),
    ("scorer", "tabular"),
}
OURS = [(kind, name) for kind, registry in registries().items() for name in registry]


@pytest.mark.parametrize(("kind", "name"), [thing for thing in OURS if thing not in NEEDS_FILES])
def test_our_own_keep_their_promises(kind, name, monkeypatch):
    if (kind, name) == ("family", "yaml"):
        monkeypatch.setattr(registries()[kind][name], "example", {"file": str(EXAMPLE_SPACE)})
    assert check(kind, name) == []


@pytest.mark.parametrize("name", OF_FILES)
def test_sets_of_files_keep_their_promises(name, monkeypatch, tmp_path):
    table, folder = write_image_table(tmp_path, 60), write_pairs(tmp_path / "pairs", 60)
    example = {
        "path": str(table),
        "validation_examples": 8,
        "targets": ["bright_pct", "middle_px"],
        "task": "regression",
    }
    if name == "image-table":
        example |= {"images": str(tmp_path / "images")}
    elif name == "rows":
        example |= {"ignore": ["image", "tags"]}
    else:
        example = {"path": str(folder), "validation_examples": 8}
    monkeypatch.setattr(registries()["workload"][name], "example", example)
    assert check("workload", name) == []


def test_there_is_a_contract_for_everything_that_can_be_brought():
    assert set(CONTRACTS) == set(registries())


def test_what_is_not_kept_is_said(monkeypatch):
    registry = Registry[Scorer]("scorer", Scorer)
    monkeypatch.setattr("nas_core.testing.contracts.SCORERS", registry)
    monkeypatch.setattr("nas_core.testing.contracts.registries", lambda: {"scorer": registry})

    class Backwards(SCORERS["train"]):
        """Rates networks in the wrong order."""

        name = "backwards"
        needs_torch = False
        needs_data = False

        def prepare(self, on_progress):
            pass

        def check(self, stored=()):
            pass

        @property
        def device_name(self):
            return "cpu"

        def evaluate(self, genotypes):
            return [self.rows.ok(genotype, 1.0, 0, 0.0) for genotype in reversed(genotypes)]

    registry.add(Backwards)
    monkeypatch.setattr("nas_core.scoring.scorer.SCORERS", registry)
    (failure,) = check("scorer", "backwards")
    assert failure.promise == "one row per genotype, in order"


def test_a_metric_that_a_function_names_and_does_not_give_is_said():
    @scorer("two-metrics", metrics={"seconds": "lower", "joules": "lower"})
    def rated(genotype):
        """Gives one of two."""
        return {"seconds": float(sum(genotype.choices))}

    try:
        (failure,) = check("scorer", "two-metrics")
    finally:
        SCORERS._entries.pop("two-metrics")
    assert (failure.promise, failure.found) == ("every metric that it names is given", "no joules")


@pytest.mark.parametrize(
    ("spoiled", "promise"),
    [
        (lambda outputs: outputs + torch.randn(()), "in eval mode the same input gives the same outputs"),
        (lambda outputs: outputs - outputs.mean(0), "in eval mode an example's outputs are its own"),
        (lambda outputs: outputs / 0.0, "outputs are finite numbers"),
    ],
    ids=["noisy", "mixing", "infinite"],
)
def test_what_is_wrong_with_a_blocks_outputs_is_said(spoiled, promise):
    class Spoiled(torch.nn.Conv2d):
        def forward(self, inputs):
            return spoiled(super().forward(inputs))

    @BLOCKS.add
    class SpoiledBlock(BLOCKS["conv"]):
        """A convolution of which more is made."""

        name = "spoiled"

        def build(self, in_channels, out_channels, stride):
            return Spoiled(in_channels, out_channels, 3, stride, padding=1)

    try:
        failures = check("block kind", "spoiled")
    finally:
        BLOCKS._entries.pop("spoiled")
    assert {failure.promise for failure in failures} == {promise}


def test_a_function_of_other_positions_than_the_examples_breaks_no_promise(monkeypatch, caplog):
    @scorer("of-three", metric="seconds", higher_is_better=False)
    def rated(values):
        """Takes three values."""
        one, two, three = values
        return float(one + two + three)

    try:
        assert check("scorer", "of-three") == []
    finally:
        SCORERS._entries.pop("of-three")
    assert caplog.text == ""


def test_a_resource_of_plain_choices_breaks_no_promise(caplog):
    @resource("seconds-of-choices", unit="s")
    def seconds(block):
        """Of a choice's value, which blocks of networks do not have."""
        return float(block["value"])

    try:
        assert check("profiler", "seconds-of-choices") == []
    finally:
        PROFILERS._entries.pop("seconds-of-choices")
    assert caplog.text == ""


def test_a_set_of_fewer_examples_than_are_held_back_is_tried_with_less():
    sample, metrics = Sample(shape=(3,), num_outputs=1), list(REGRESSION.values())

    @dataset_workload("few-rows", sample=sample, loss=torch.nn.MSELoss(), metrics=metrics)
    def rows(settings):
        """Forty rows."""
        inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        rows = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
        return torch.utils.data.Subset(rows, range(40)), torch.utils.data.Subset(rows, range(40, 50))

    try:
        assert check("workload", "few-rows") == []
    finally:
        WORKLOADS._entries.pop("few-rows")


def test_settings_that_cannot_be_tested_without_an_example_are_named(monkeypatch):
    class Needy(SCORERS["tabular"]):
        """A scorer with a setting that has no default."""

        name = "needy"

    SCORERS.add(Needy)
    try:
        (failure,) = check("scorer", "needy")
        assert failure.found == "no path"
    finally:
        SCORERS._entries.pop("needy")


def test_every_kind_of_thing_is_registered():
    for kind, registry in registries().items():
        assert list(registry), kind
        for name in registry:
            thing = registry[name]
            assert issubclass(thing, Registered)
            assert issubclass(thing.Settings, Section)


def test_why_an_alternative_stands_nowhere_or_cannot_be_built_again_is_said():
    class Own(torch.nn.Identity):
        pass

    class Brought(Alternative):
        """Puts a layer of its own, or changes the block itself."""

        name = "brought"

        def change(self, draft):
            draft.put("", Own())
            return ""

    class Direct(Brought):
        """Changes the block itself."""

        name = "direct"

        def change(self, draft):
            if not hasattr(draft.block, "body"):
                return "no body"
            draft.block.body = torch.nn.Identity()
            return ""

    for thing in (Brought, Direct):
        ALTERNATIVES.add(thing)
    try:
        (nowhere,), (not_written,) = check("alternative", "brought"), check("alternative", "direct")
    finally:
        for thing in (Brought, Direct):
            ALTERNATIVES._entries.pop(thing.name)
    assert nowhere.found.startswith("refused for all blocks tried: TypeError: Own: only Conv2d")
    assert nowhere.found.endswith("(convolutional, row, transformer)")
    assert not_written.promise == "changes by which the block is built again"
    assert "draft.put and draft.set (convolutional)" in not_written.found
