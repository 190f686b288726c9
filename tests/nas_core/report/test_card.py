"""What is said of a file's latency, and of what stands where in a network."""

import pytest

from nas_core.report.card import _change, latency_in_words
from nas_core.study.finished import FileLatency


@pytest.mark.parametrize(("kept", "is_told"), [(0, True), (1, False), (2, False)])
def test_a_limit_that_does_not_hold_says_what_to_do(kept, is_told):
    latency = FileLatency(
        file="model.onnx",
        device="CPU",
        batch_size=1,
        num_threads=1,
        winner_ms=(1.0, 1.2),
        base_ms=(2.0, 2.0),
        kept={"latency_ms<=50%": kept},
    )
    *lines, last = latency_in_words([latency])
    assert f"The limit latency_ms<=50% holds on model.onnx in {kept} of 2 times." in (*lines, last)
    assert last.startswith("It was chosen by other measurements") == is_told


LINEAR, POOL, PASSED_ON = {"class": "Linear"}, {"class": "AvgPool2d", "kernel_size": 1}, {"class": "Identity"}


@pytest.mark.parametrize(
    ("put", "said"),
    [
        ({"class": "Only", "inner": LINEAR}, "replaced by one Linear"),
        ({"class": "Only", "inner": PASSED_ON}, "replaced by nothing: what comes in goes out"),
        (
            {"class": "Only", "inner": {"class": "Sequential", "layers": [POOL, LINEAR]}},
            "replaced by one AvgPool2d, then one Linear",
        ),
        ({"class": "Only", "inner": {"class": "Conv2d", "kernel_size": [1, 1]}}, "replaced by one Conv2d of 1 x 1"),
        ({"class": "Nothing"}, "replaced by nothing, which adds zeros"),
        ({"class": "Sequential", "layers": []}, "replaced by nothing: what comes in goes out"),
    ],
)
def test_what_stands_in_a_blocks_place_is_said_without_the_loaders_own_classes(put, said):
    assert _change({"put": put}) == said
