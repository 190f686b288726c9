"""The program that is handed over: bytes and floats, any size and any number of images, as the module itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from nas_core.base.errors import NasError
from nas_core.training.export import deployed, exported_bytes, load_exported
from nas_core.workloads.images.decoding import Fitting, square
from nas_core.workloads.images.tensors import resized
from nas_core.workloads.normalisation import Normalisation

pytestmark = pytest.mark.situations

SIDE = 32
PHOTOS = torch.tensor(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)  # two of 427 x 640 pixels
CUTS = [PHOTOS, PHOTOS[:1, :, :200, :333], PHOTOS[:, :, :33, :64], PHOTOS[1:, :, :67, :32], PHOTOS[:, :, :20, :20]]
NORMALISED = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
FITTINGS = [
    Fitting(),
    Fitting(crop_pct=0.875, interpolation="bicubic"),
    Fitting(fit="squash"),
    Fitting(fit="pad", background="#ff8000"),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))


def squares(images, fitting):
    """As the study reads them."""
    made = [np.asarray(square(Image.fromarray(each.permute(1, 2, 0).numpy()), SIDE, fitting)) for each in images]
    return torch.tensor(np.stack(made)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module", params=FITTINGS, ids=lambda fitting: fitting.fit + fitting.interpolation)
def pair(request):
    module = deployed(network(), NORMALISED, (3, SIDE, SIDE), request.param)
    return module, load_exported(exported_bytes(module))


@torch.no_grad()
def test_program_and_module_agree_on_photographs_of_any_size_number_and_type(pair):
    module, program = pair
    for images in [*CUTS, squares(PHOTOS, module.fitting)]:
        outputs = module(images)
        assert torch.allclose(program(images), outputs, atol=1e-6)
        assert torch.allclose(program(images.long()), outputs, atol=1e-6)
        for floats in (images.float() / 255, images.double() / 255):
            assert torch.allclose(program(floats), module(floats), atol=1e-6)
            assert torch.allclose(program(floats), outputs, atol=2e-3)  # bytes are rounded once they are scaled


@torch.no_grad()
def test_images_become_squares_as_the_study_makes_them(pair):
    module, program = pair
    plain = deployed(network(), NORMALISED, (3, SIDE, SIDE))  # given squares, it leaves them alone
    for images in CUTS:
        assert torch.allclose(program(images), plain(squares(images, module.fitting)), atol=5e-3)


@torch.no_grad()
def test_bytes_and_floats_of_the_networks_own_size_are_one_input():
    module = deployed(network(), NORMALISED, (3, SIDE, SIDE))
    images = squares(PHOTOS, Fitting())
    known = module.network((images.float() / 255 - module.mean) / module.std)
    program = load_exported(exported_bytes(module))
    for given in (images, images.float() / 255, images[:1]):
        assert torch.allclose(program(given), known[: len(given)], atol=1e-5)
        assert torch.allclose(module(given), known[: len(given)], atol=1e-5)


def test_floats_that_are_no_fractions_are_refused_and_not_answered_wrongly():
    module = deployed(network(), NORMALISED, (3, SIDE, SIDE))
    for each in (module, load_exported(exported_bytes(module))):
        with pytest.raises(RuntimeError, match="fractions from 0 to 1"):
            each(PHOTOS.float())


@torch.no_grad()
def test_floats_in_units_of_their_own_are_taken_as_they_are():
    """Images of a torch dataset are often normalised by it, so that they are beyond any fraction."""
    module = deployed(network(), Normalisation(), (3, SIDE, SIDE), in_fractions=False)
    images = torch.linspace(-9, 9, 2 * 3 * SIDE * SIDE).reshape(2, 3, SIDE, SIDE)
    for each in (module, load_exported(exported_bytes(module))):
        assert torch.allclose(each(images), module.network(images), atol=1e-5)


@torch.no_grad()
def test_gray_images_and_inputs_that_are_no_images():
    gray = deployed(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2)), Normalisation(), (1, 8, 8))
    images = PHOTOS.float().mean(1, keepdim=True).to(torch.uint8)
    gray(images)
    assert torch.allclose(load_exported(exported_bytes(gray))(images), gray(images), atol=1e-6)
    plain = deployed(nn.Linear(5, 2), Normalisation(mean=(1.0,) * 5, std=(2.0,) * 5), (5,))
    program = load_exported(exported_bytes(plain))
    numbers = torch.randint(0, 256, (7, 5))
    for given in (numbers, numbers.float(), numbers.to(torch.uint8)):
        assert torch.allclose(program(given), plain(given), atol=1e-6)
    assert torch.allclose(plain(numbers.to(torch.uint8)), plain(numbers / 255), atol=1e-6)  # bytes are fractions
    assert torch.allclose(plain(numbers), plain(numbers.float()), atol=1e-6)


@torch.no_grad()
def test_sets_of_one_size_are_resized_as_their_tensors_are():
    module = deployed(network(), NORMALISED, (3, SIDE, SIDE))
    program = load_exported(exported_bytes(module))
    for images in CUTS:
        assert torch.allclose(program(images), module(resized(images, SIDE)), atol=5e-3)


def test_a_network_that_fixes_the_number_of_examples_is_told_how_not_to():
    class Tokens(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.count, self.token = count, nn.Parameter(torch.zeros(1, 1, 8))

        def forward(self, x):
            return torch.cat([self.token.expand(self.count(x), -1, -1), x.flatten(2)], 1).mean(1)

    with pytest.raises(NasError, match=r"len\(x\), say, where x\.shape\[0\] does not"):
        exported_bytes(deployed(Tokens(len), Normalisation(), (4, 8), dtype="float32"))
    assert exported_bytes(deployed(Tokens(lambda x: x.shape[0]), Normalisation(), (4, 8), dtype="float32"))
