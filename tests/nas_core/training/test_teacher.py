"""Teachers from files and by URI give the student what they would give anybody; a model's own blocks, too."""

from collections import OrderedDict
from contextlib import ExitStack

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from nas_core.base import fetching
from nas_core.base.errors import DataError, NasError
from nas_core.study.config import parse_config
from nas_core.training.export import deployed, exported_bytes
from nas_core.training.features import Features, relative_error
from nas_core.training.loop import train
from nas_core.training.recipes import RECIPES
from nas_core.training.settings import Recipe, TeacherConfig
from nas_core.training.teacher import OwnModel, create_model, load_teacher
from nas_core.workloads.images.digits import Digits
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.settings import ImageSettings

PREPARE = Normalisation(mean=(0.3,), std=(0.2,))
IMAGES = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


def load(shape=(1, 8, 8), **given):
    return load_teacher(TeacherConfig(**given), 10, shape, PREPARE, CPU)


def linear():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A stored program whose own preparation differs from the student's."""
    path = tmp_path_factory.mktemp("teacher") / "program.pt2"
    path.write_bytes(exported_bytes(deployed(linear(), Normalisation(mean=(0.5,), std=(0.1,)), (1, 8, 8))))
    return path


def test_a_program_sees_the_images_as_its_own_preparation_wants(program):
    expected = linear()((IMAGES.float() / 255 - 0.5) / 0.1)
    teach = load(model=str(program))
    assert torch.allclose(teach(PREPARE(IMAGES)), expected, atol=1e-4)
    noise = 100 * torch.randn(4, 1, 8, 8)  # a program refuses what is no fraction of full brightness
    assert torch.isfinite(teach(noise)).all()


def test_timms_model_with_a_file_of_weights(tmp_path):
    model = create_model("test_resnet.r160_in1k", num_classes=10, in_chans=1).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    teach = load(model="test_resnet.r160_in1k", checkpoint=str(tmp_path / "weights.pth"), resolution=32)
    known = model.pretrained_cfg
    mean, std = (sum(known[key]) / 3 for key in ("mean", "std"))
    larger = nn.functional.interpolate(IMAGES.float() / 255, size=(32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = model((larger - mean) / std)
    assert torch.allclose(teach(PREPARE(IMAGES)), expected, atol=1e-4)


def test_a_model_by_its_uri(monkeypatch):
    monkeypatch.setitem(fetching.FETCHERS, "models", lambda uri: {"models:/a@b": linear()}[uri])
    assert torch.allclose(load(model="models:/a@b")(PREPARE(IMAGES)), linear()(IMAGES.float() / 255), atol=1e-4)


def test_what_is_no_teacher_is_said(tmp_path):
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    for given, error, said in (
        ({"model": "resnet_of_nobody", "checkpoint": "w.pth"}, NasError, "resnet_of_nobody"),
        ({"model": "test_resnet.r160_in1k"}, ValidationError, "weights of test_resnet"),
        ({"model": "test_resnet.r160_in1k", "checkpoint": str(tmp_path / "bad.pth")}, DataError, "bad.pth"),
        ({"model": "test_resnet.r160_in1k", "checkpoint": str(tmp_path / "none.pth")}, DataError, "none.pth"),
        ({"model": str(tmp_path / "bad.pt2")}, DataError, "bad.pt2"),
        ({"model": "gopher:/a"}, NasError, "gopher"),
    ):
        with pytest.raises(error, match=said.replace(".", r"\.")):
            load(**given)


def test_a_student_comes_to_agree(program):
    """Agreement alone: after some steps the student's outputs are the teacher's, whatever the labels."""
    digits = Digits(ImageSettings(validation_examples=100, train_examples=512))
    data = digits.load()
    teacher = TeacherConfig(model=str(program), weight=1.0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipe = Recipe(epochs=20, batch_size=64, lr=0.1, augment="none", weight_decay=0, teacher=teacher)
    train(student, recipe, data, digits, seed=0, device="cpu")
    inputs = data.prepare(data.validation[0])
    taught = load_teacher(teacher, 10, (1, 8, 8), data.prepare, CPU)(inputs).argmax(1)
    assert (student(inputs).argmax(1) == taught).float().mean() > 0.8


def test_a_teacher_is_known_by_what_its_file_holds(program, tmp_path):
    def recipe(path):
        return Recipe(teacher=TeacherConfig(model=str(path)))

    other = tmp_path / "other.pt2"
    other.write_bytes(program.read_bytes())
    assert recipe(other).identity == recipe(program).identity
    other.write_bytes(b"changed")
    assert recipe(other).identity != recipe(program).identity
    recipe(program).check("recipe")
    with pytest.raises(DataError, match=r"train\.recipe\.teacher\.model: found .*none\.pt2"):
        recipe(tmp_path / "none.pt2").check("train.recipe")
    assert Recipe.model_validate("deit").identity == Recipe(**RECIPES["deit"]()).identity


def test_files_are_found_beside_the_study(tmp_path):
    from nas_core.base.settings import parse_as
    from nas_core.study.config import StudyConfig

    given = {"train": {"recipe": {"teacher": {"model": "t.pt2", "checkpoint": "w.pth"}}}}
    teacher = parse_as(StudyConfig, given, "test", tmp_path).train.recipe.teacher
    assert (teacher.model, teacher.checkpoint) == (str(tmp_path / "t.pt2"), str(tmp_path / "w.pth"))
    given["train"]["recipe"]["teacher"]["model"] = "models:/a@b"
    assert parse_config(given, "test").train.recipe.teacher.model == "models:/a@b"


def test_blocks_learn_what_the_models_blocks_give_in_their_places():
    """With the weight on features the student's blocks come nearer; without, its outputs alone count."""
    digits = Digits(ImageSettings(validation_examples=100, train_examples=512))
    data, model = digits.load(), layers(seed=1).eval()
    inputs = data.prepare(data.validation[0])

    def after(features):
        student = layers(seed=2)
        recipe = Recipe(
            epochs=3, batch_size=64, lr=0.05, augment="none", weight_decay=0, teacher=taught_by_its_own(features)
        )
        own = OwnModel(network=lambda: model, places=["body", "elsewhere.body"])
        train(student, recipe, data, digits, seed=0, device="cpu", own_teacher=own)
        assert not student.body._forward_hooks
        assert not model.body._forward_hooks
        with torch.no_grad():
            return float(relative_error(student.body(student.stem(inputs)), model.body(model.stem(inputs))))

    assert after(features=1.0) < 0.5 * after(features=0.0)


def layers(seed, width=16):
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Flatten(), nn.Linear(64, width))
    body, head = nn.Linear(width, width), nn.Linear(width, 10)
    return nn.Sequential(OrderedDict(stem=stem, body=body, head=head))


def taught_by_its_own(features):
    return TeacherConfig(model="own", weight=1.0, features=features)


def test_blocks_of_other_shapes_are_not_compared():
    features = Features(layers(2, width=8), layers(1), ["body", "head"])
    with ExitStack() as meanwhile:
        features.watch(meanwhile)
        own, model = (pair for pair in zip(*features.pairs.values(), strict=True))
        for layer, width in ((own[0], 8), (own[1], 8), (model[0], 16), (model[1], 16)):
            layer(torch.ones(2, width))
    expected = relative_error(own[1](torch.ones(2, 8)), model[1](torch.ones(2, 16)))
    assert torch.isclose(features.error(), expected)
    assert features.error() == 0  # each pass counts once


def test_features_are_of_the_own_model_and_not_compiled(program):
    with pytest.raises(ValidationError, match="features"):
        TeacherConfig(model=str(program), features=1.0)
    with pytest.raises(ValidationError, match="compile"):
        Recipe(compile=True, teacher=taught_by_its_own(1.0))
    known = Recipe(teacher=TeacherConfig(model="own")).identity["teacher"]
    assert "features" not in known  # what was trained before features were known stays known
