"""The loader that travels with a network: images as the study makes them, and files that make models."""

import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from nas_core.families.model.rebuild import factory_of, image_of, main
from nas_core.workloads.images.decoding import Fitting, decoded, square

pytestmark = pytest.mark.situations

PHOTO = load_sample_images().images[0]
FITTINGS = [
    Fitting(),
    Fitting(crop_pct=0.875, interpolation="bicubic"),
    Fitting(fit="squash"),
    Fitting(fit="pad", background="#ff8000"),
    Fitting(fit="pad", crop_pct=0.9, background="white"),
]


@pytest.mark.parametrize("fitting", FITTINGS, ids=lambda fitting: f"{fitting.fit}{fitting.crop_pct}")
@pytest.mark.parametrize("size", [(427, 640), (200, 33), (20, 20)])
def test_an_image_becomes_the_square_that_the_study_makes_of_it(tmp_path, fitting, size):
    image = Image.fromarray(PHOTO[: size[0], : size[1]])
    image.save(tmp_path / "photo.png")
    kinds = {name: getattr(fitting, name) for name in ("fit", "interpolation", "crop_pct", "background")}
    found = image_of(tmp_path / "photo.png", {"shape": [3, 32, 32], "fitting": kinds})
    expected = np.asarray(square(image, 32, fitting)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_gray_image_has_one_channel(tmp_path):
    Image.fromarray(PHOTO[..., 0]).save(tmp_path / "gray.png")
    assert image_of(tmp_path / "gray.png", {"shape": [1, 8, 8]}).shape == (1, 8, 8)


def seen_through(image):
    """The image, less and less transparent from left to right."""
    shares = np.linspace(0, 255, image.width, dtype=np.uint8)[None].repeat(image.height, 0)
    image.putalpha(Image.fromarray(shares))
    return image


COLOUR = Image.fromarray(PHOTO[:50, :70])
GRAY = COLOUR.convert("L")
GRAYS = {
    "16 bits": Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257),
    "transparent": seen_through(GRAY.copy()),
    "array": np.asarray(GRAY),
}
COLOURS = {
    "transparent": seen_through(COLOUR.copy()),
    "palette": COLOUR.convert("P"),
    "array": np.asarray(COLOUR),
    "array of 16 bits": np.asarray(COLOUR).astype(np.uint16) * 257,
}
KINDS = [(image, channels) for image in GRAYS.values() for channels in (1, 3)]
KINDS += [(image, 3) for image in COLOURS.values()]
NAMES = [f"gray, {name}, {channels}" for name in GRAYS for channels in (1, 3)] + [f"colour, {name}" for name in COLOURS]


def saved(image, folder):
    """The path of a file that holds it."""
    if isinstance(image, np.ndarray):
        np.save(folder / "image.npy", image)
        return folder / "image.npy"
    image.save(folder / "image.png")
    return folder / "image.png"


@pytest.mark.parametrize("fitting", [Fitting(background="#ff8000"), Fitting(fit="pad", background="#ff8000")])
@pytest.mark.parametrize(("image", "channels"), KINDS, ids=NAMES)
def test_an_image_is_read_as_the_study_reads_its_images(tmp_path, image, channels, fitting):
    path = saved(image, tmp_path)
    kinds = {name: getattr(fitting, name) for name in ("fit", "interpolation", "crop_pct", "background")}
    found = image_of(path, {"shape": [channels, 32, 32], "fitting": kinds})
    expected = decoded(path, 32, channels, fitting).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_an_array_of_other_channels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="3 channels, the network takes 5"):
        image_of(saved(COLOURS["array"], tmp_path), {"shape": [5, 8, 8]})


VERSIONS = {  # of a model, with neighbours that are called alike
    "first": {"parts/__init__.py": "", "parts/deep.py": "NAME = 'first'"},
    "second": {"parts/deep.py": "NAME = 'second'"},  # a folder that is a package without saying so
    "third": {"parts.py": "class deep:\n    NAME = 'third'"},
}


def test_files_of_several_folders_import_their_own_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    for version, files in VERSIONS.items():
        for name, text in {"maker.py": "from parts import deep\n\ndef build():\n    return deep.NAME", **files}.items():
            (tmp_path / version / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / version / name).write_text(text)
        if version != "third":
            path = tmp_path / version / "maker.py"
            path.write_text(path.read_text().replace("from parts import deep", "import parts.deep as deep"))
    order = ["first", "second", "third", "second", "first", "first"]
    assert [factory_of(f"{tmp_path / name}/maker.py:build")() for name in order] == order


def test_a_file_may_be_called_as_a_folder_of_modules_was(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    texts = {
        "one": ("parts/deep/size.py", "parts.deep.size"),
        "two": ("parts.py", "parts"),
        "three": ("parts.py", "parts"),
    }
    for number, (folder, (file, module)) in enumerate(texts.items()):
        place = tmp_path / folder / file
        place.parent.mkdir(parents=True)
        place.write_text(f"SIZE = {number}")
        (tmp_path / folder / "mine.py").write_text(f"from {module} import SIZE\ndef build():\n    return SIZE\n")
        assert factory_of(f"{tmp_path / folder}/mine.py:build")() == number


@pytest.mark.parametrize("gives_logits", [True, False])
def test_maps_of_classes_are_counted_and_others_are_not(tmp_path, capsys, monkeypatch, gives_logits):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    description = {
        "input": {"shape": [3, 8, 8]},
        "output_names": ["red", "green", "blue"],
        "gives_logits": gives_logits,
    }
    monkeypatch.setattr("nas_core.families.model.rebuild.load", lambda _: lambda images: images)
    monkeypatch.setattr("nas_core.families.model.rebuild._description", lambda _: description)
    main("folder", str(tmp_path / "photo.png"))
    said = capsys.readouterr().out
    assert "outputs of  3 x 8 x 8" in said
    assert ("green" in said) == gives_logits


def test_a_network_of_rows_says_that_it_takes_no_images(monkeypatch):
    monkeypatch.setattr("nas_core.families.model.rebuild.load", lambda _: None)
    monkeypatch.setattr("nas_core.families.model.rebuild._description", lambda _: {"input": {"shape": [10]}})
    with pytest.raises(SystemExit, match=r"It takes B x 10 and no images: call what load\('folder'\) gives"):
        main("folder", "photo.png")
