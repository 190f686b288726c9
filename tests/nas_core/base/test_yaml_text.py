"""YAML is read strictly (YAML 1.2's scalars, no key twice) and written so that every reader reads the same."""

import pytest
import yaml

from nas_core.base.errors import ConfigError
from nas_core.base.yaml_text import read_yaml, read_yaml_file, write_yaml

pytestmark = pytest.mark.situations


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("_1", "_1"),
        ("1e-3", 0.001),
        ("5e6", 5_000_000),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("5M", "5M"),
        ("true", True),
        ("~", None),
        ("2-0-1-1", "2-0-1-1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = read_yaml(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' twice, in lines 1 and 3, expected every key once"),
        ("select: {limits: [x]}\ntop: 1\nselect:\n  top: 3", "the key 'select' twice, in lines 1 and 3"),
        ("- {x: 1, x: 2}", "the key 'x' twice, in lines 1 and 1"),
        ("a:\n  1: x\n  01: y", "the key 1 twice, in lines 2 and 3"),
        ("a:\t- b", r"s.yaml: found character '\\t' that cannot start any token in line 1, column 3"),
        ("a: [", "expected the node content, but found '<stream end>' in line 1"),
        ("a: 1\n---\nb: 2", "expected a single document in the stream, but found another document in line 2"),
        ("? [1]\n: 2", "a key that is a list or a mapping in line 1"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("1" * 5000, "a number of 5,000 digits"),
        ("a: &a [*a]", "an anchor that holds itself"),
        ("&a\nx: {y: *a}", "an anchor that holds itself"),
        (b"\xff\xfea", "bytes that are no UTF-8 text"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_lines(text, words):
    with pytest.raises(ConfigError) as refused:
        read_yaml(text, "s.yaml")
    assert words.replace("\\\\", "\\") in str(refused.value)
    assert "found found" not in str(refused.value)


def test_a_key_that_an_alias_brings_gives_way_to_the_mappings_own():
    text = "base: &base {p: 1, q: 2}\nmine:\n  <<: *base\n  p: 3\n"
    assert read_yaml(text, "x")["mine"] == {"p": 3, "q": 2}


def test_an_anchor_may_be_named_any_number_of_times():
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    assert read_yaml("\n".join(lines), "x")["a1"] == [[1], [1]]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_files_of_other_systems_are_read(tmp_path, mark, end):
    path = tmp_path / "s.yaml"
    path.write_bytes(mark + end.join([b"a: 1", "b: größer".encode(), b"c:", b"- x"]) + end)
    assert read_yaml_file(path) == {"a": 1, "b": "größer", "c": ["x"]}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: found No such file or directory, expected a readable YAML"):
        read_yaml_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "value",
    ["1e3", "yes", "010", "1_000", "5e6", "0o17", "on", "2024-01-01", "1:30", "null", "~", "<<", 1e-5, 1e22, 10**30],
)
def test_what_is_written_is_read_as_the_same_by_every_reader(value):
    text = write_yaml({"key": value})
    assert read_yaml(text, "x") == yaml.safe_load(text) == {"key": value}
