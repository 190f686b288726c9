"""What a chain takes and gives is held against the data before anything is computed."""

import pytest
import torch

from nas_core.base.errors import ConfigError, DataError, SpaceError
from nas_core.costs.counting import count_parts
from nas_core.families.family import FAMILIES
from nas_core.families.yaml_space import space_from_data
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample

MASKS = Sample(shape=(3, 32, 32), num_outputs=4, dense=True)
ROWS = Sample(shape=(13,), num_outputs=2)
LAYERS = {
    "name": "layers",
    "stem": {"kind": "linear", "out_channels": 8},
    "positions": [
        {"out_channels": 8, "blocks": ["residual-mlp", "absent"]},
        {"out_channels": 4, "blocks": ["linear", {"kind": "linear", "norm": False, "act": "gelu"}]},
    ],
    "head": "linear",
}


def family(name: str, sample: Sample, **settings):
    kind = FAMILIES[name]
    return kind(kind.Settings(**settings), sample)


def yaml_family(data, sample: Sample):
    return family("yaml", sample, file="layers.yaml", definition=data)


@pytest.mark.parametrize("name", ["tiny", "resnet", "mobile", "nasbench-macro"])
def test_families_of_classifiers_refuse_masks_and_rows_in_one_line(name):
    with pytest.raises(DataError, match="data that want outputs per pixel, expected outputs per image, which head"):
        family(name, MASKS).space  # noqa: B018
    with pytest.raises(DataError, match="found rows of shape 13, expected images, which stem kind") as error:
        family(name, ROWS).space  # noqa: B018
    assert "\n" not in str(error.value)


def test_layers_take_rows_and_no_images():
    made = yaml_family(LAYERS, ROWS)
    for genotype in made.space.genotypes():
        network = made.module(genotype, torch.Generator().manual_seed(0)).eval()
        assert network(torch.zeros(3, 13)).shape == (3, 2)
        assert made.shared(0).eval()(torch.zeros(3, 13), genotype=genotype).shape == (3, 2)
    counts = count_parts(list(made.parts(Genotype((1, 0)))))
    assert counts.flops == 13 * 8 + 8 * 4 + 4 * 2
    with pytest.raises(DataError, match="found images of shape 3 x 32 x 32, expected rows, which stem kind linear"):
        yaml_family(LAYERS, Sample(shape=(3, 32, 32), num_outputs=2)).space  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": [{"out_channels": 8, "blocks": ["conv"]}]}, "expected images, which block kind conv"),
        ({"positions": [{"out_channels": 8, "stride": 2, "blocks": ["linear"]}]}, "stride 1, as rows have"),
        ({"positions": [{"out_channels": 9, "blocks": ["residual-mlp"]}]}, "stride 1 that keeps the width"),
        ({"head": "pool-linear"}, "expected images, which head kind pool-linear"),
    ],
)  # fmt: skip
def test_what_cannot_stand_among_layers_is_said(changes, words):
    with pytest.raises((DataError, SpaceError), match=words):
        yaml_family({**LAYERS, **changes}, ROWS).space  # noqa: B018


def dense(**changes):
    return {
        "name": "dense",
        "resolutions": [32],
        "stem": {"kind": "conv", "out_channels": 4, "stride": 2},
        "positions": [{"out_channels": 4, "stride": 2, "blocks": ["conv", "basic"]}],
        "head": {"kind": "conv-upsample", "channels": 8, "scale": 4},
        **changes,
    }


def test_a_head_may_give_outputs_for_every_pixel():
    made = yaml_family(dense(), MASKS)
    assert made.module(Genotype((1,))).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 4, 32, 32)
    with pytest.raises(DataError, match="data that want outputs per image, expected outputs per pixel, which head"):
        yaml_family(dense(), Sample(shape=(3, 32, 32), num_outputs=4)).space  # noqa: B018
    with pytest.raises(DataError, match="2 resolutions and data that want outputs per pixel"):
        yaml_family(dense(resolutions=[32, 64]), MASKS).space  # noqa: B018


def test_only_a_space_for_rows_does_without_resolutions():
    assert space_from_data(LAYERS, "layers.yaml").resolutions == (1,)
    without = {key: value for key, value in dense().items() if key != "resolutions"}
    with pytest.raises(ConfigError, match="resolutions"):
        space_from_data(without, "dense.yaml")
