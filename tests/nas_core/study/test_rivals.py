"""Rivals made of the trained model: within the limits, loaded by anybody, trained like others."""

import pytest
import torch

import nas_core
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.study.contestants import Candidate, Remark, trainings
from nas_core.study.rivals import Rivals
from nas_core.study.study import Study
from nas_core.training.winner import load_deployed
from tasks.worker import profile_job, rivals_job, study_job, train_job
from tests.conftest import config_of
from tests.flows.test_export_command import model_config

import timm  # isort: skip

LIMITS = ["flops<=50%"]


def quiet(*_):
    pass


def made(config, root, *kinds, limits=LIMITS):
    """A study that is measured, and what it is compared with."""
    sections = {
        "train": config.train.model_copy(update={"compare": list(kinds)}),
        "select": config.select.model_copy(update={"limits": limits}),
        "profile": config.profile.model_copy(update={"resources": ["flops", "params"]}),
    }
    study = Study.create(config.model_copy(update=sections), str(root))
    profile_job(study_job(study), list(study.profiler_ids), [], quiet)
    study.refresh()
    return study, rivals_job(study_job(study), [], quiet)


@pytest.mark.parametrize(("kind", "package"), [("uniform", "torch"), ("torch_pruning", "torch_pruning")])
def test_a_smaller_model_uses_the_limit_is_trained_and_loads_without_us(tmp_path, kind, package):
    pytest.importorskip(package)
    study, found = made(model_config(), tmp_path, kind)
    (rival,) = found["candidates"]
    assert (rival.role, found["remarks"], found["measured"]) == (kind, [], {})
    base = study.costs_of(study.base)["flops"]
    assert 0.4 * base < found["costs"][kind]["flops"] <= 0.5 * base
    (training,) = trainings(study.snapshot, [rival])
    result = train_job(study_job(study), training, quiet)
    assert result["new"]
    assert not train_job(study_job(study), training, quiet)["new"]
    folder = tmp_path / "winner" / kind
    (folder / "weights.safetensors").rename(folder / "model.safetensors")
    plain = nas_core.load(folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    images = torch.rand(3, *study.family.sample.shape)
    with torch.no_grad():
        assert torch.equal(load_deployed(study.store, kind)[0](images), plain(images))


def test_a_rival_that_is_stored_is_not_made_again(tmp_path):
    study, first = made(model_config(), tmp_path, "uniform")
    before = {path: study.store.read_bytes(path) for path in study.store.paths("rivals")}
    assert len(before) == 2
    assert rivals_job(study_job(study), [], quiet) == first
    assert {path: study.store.read_bytes(path) for path in study.store.paths("rivals")} == before


def test_a_percentage_of_another_base_makes_another_rival(tmp_path):
    study, first = made(model_config(), tmp_path, "uniform", limits=["flops<=70%"])
    smaller = min(study.space.neighbours(study.base), key=study.flops.total)
    design = study.config.design.model_copy(update={"base": str(smaller)})
    other = study.config.model_copy(update={"design": design})
    _, second = made(other, tmp_path, "uniform", limits=study.config.select.limits)
    assert second["costs"]["uniform"]["flops"] <= 0.7 * study.flops.total(smaller)
    assert second["candidates"][0].remade != first["candidates"][0].remade


def test_latency_is_held_in_turns_with_the_base(tmp_path):
    """A limit far above what the base takes is kept, one far below is not: no matter of luck."""
    config = model_config()
    study, _ = made(config, tmp_path)
    timed = config.profile.model_copy(update={"resources": ["flops", "latency_ms"]})
    for limit, is_over in (("latency_ms<=500%", False), ("latency_ms<=5%", True)):
        select = study.config.select.model_copy(update={"limits": [limit]})
        other = Study.create(study.config.model_copy(update={"select": select, "profile": timed}), study.store.root)
        profile_job(study_job(other), ["latency_ms"], [], quiet)
        other.refresh()
        assert (Rivals(other).used(other.family.module(other.base)) > 1) == is_over


def test_what_there_is_not_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    _, found = made(model_config(), tmp_path, "torch_pruning", "sibling")
    assert found["candidates"] == []
    assert found["remarks"] == [
        Remark(role="torch_pruning", text="Torch-Pruning is not installed: pip install torch-pruning"),
        Remark(role="sibling", text="There is none: the model is none of timm's."),
    ]


def test_without_a_limit_that_it_can_be_held_against_there_is_none(tmp_path):
    _, found = made(model_config(), tmp_path, "uniform", limits=["flops>=10%"])
    said = "There is none: no limit from above on what a network of no space can be asked for."
    assert (found["candidates"], found["remarks"]) == ([], [Remark(role="uniform", text=said)])


def test_what_cannot_be_made_does_not_cost_the_winner_its_training(tmp_path, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("shapes of another model")

    monkeypatch.setattr("nas_core.families.model.pruning.narrowed", broken)
    _, found = made(model_config(), tmp_path, "uniform")
    assert found["candidates"] == []
    said = "It could not be made: RuntimeError: shapes of another model"
    assert found["remarks"] == [Remark(role="uniform", text=said)]
    assert "Traceback" in caplog.text


def test_networks_that_no_model_is_behind_have_no_rivals_of_that_kind(tmp_path):
    _, found = made(config_of(), tmp_path, "uniform", limits=["params<=80%"])
    assert found["remarks"] == [Remark(role="uniform", text="It is made of a trained model, and this study has none.")]


def test_a_sibling_is_the_largest_of_the_smaller_ones_within_the_limits(tmp_path):
    network = timm.create_model("lcnet_050", num_classes=10, in_chans=1)
    torch.save(network.state_dict(), tmp_path / "trained.pth")
    config = model_config()
    space = config.space.model_copy(
        update={"model": "timm:lcnet_050", "checkpoint": str(tmp_path / "trained.pth"), "library": [{"kind": "linear"}]}
    )
    study, found = made(
        config.model_copy(update={"space": space}), tmp_path / "study", "sibling", limits=["flops<=90%"]
    )
    assert found["remarks"] == []
    (rival,) = found["candidates"]
    assert rival == Candidate(name="sibling", role="sibling", genotype="timm:lcnet_035", remade=rival.remade)
    assert found["costs"]["sibling"]["params"] < study.costs_of(study.base)["params"]
    one, other = (Rivals(study).remade(rival.remade).module() for _ in range(2))
    assert {name: t.shape for name, t in one.state_dict().items()} == {
        name: t.shape for name, t in other.state_dict().items()
    }
