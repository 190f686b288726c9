import pytest

from nas_core.base.words import counted


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "1 epoch"), (1.0, "1 epoch"), (0, "0 epochs"), (0.5, "0.5 epochs"), (2000, "2,000 epochs")],
)
def test_a_number_agrees_with_its_noun(count: float, expected: str) -> None:
    assert counted(count, "epoch") == expected
