"""What is said of a file's latency."""

import pytest

from nas_core.report.card import latency_in_words
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
