"""Files of structures that are none are said in one line."""

import pytest

from nas_core.base.errors import DataError
from nas_core.deepmad.structure import Structure

ROW = '{"kind": "stem", "out": Infinity}, {"kind": "res", "out": 8, "bottleneck": 8, "kernel": 3, "depth": 1}'


@pytest.mark.parametrize(
    "content", [b"\xff\xfe[]", b"[" * 10_000, b"[1, 2", f"[{ROW}]".encode(), b'{"structure": 3}', b"null"]
)
def test_what_is_no_structure_is_said(tmp_path, content):
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        Structure.read(path)
    assert "\n" not in str(error.value)
