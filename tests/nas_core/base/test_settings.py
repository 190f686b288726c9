"""Fields that name files, and what is said of wrong ones."""

from pathlib import Path

import pytest

from nas_core.base.callables import settings_of
from nas_core.base.errors import ConfigError
from nas_core.base.settings import PathText, Section, parse_as


def test_a_default_path_is_relative_to_the_file_as_a_given_one_is():
    def rated(values, *, source: PathText = "main.c", other: PathText | None = "other.c"):
        return 1.0

    settings = settings_of(rated, "rated")
    found = parse_as(settings, {"other": "given.c"}, "test", Path("/studies"))
    assert (found.source, found.other) == ("/studies/main.c", "/studies/given.c")
    assert parse_as(settings, {}, "test", Path("/studies")).other == "/studies/other.c"
    assert settings.model_validate_json(found.model_dump_json()) == found


class Counts(Section):
    a: int = 1
    b: int = 1
    c: int = 1


@pytest.mark.parametrize(("wrong", "said"), [("a", ""), ("ab", "1 more wrong field."), ("abc", "2 more wrong fields.")])
def test_other_wrong_fields_are_counted(wrong, said):
    with pytest.raises(ConfigError) as caught:
        parse_as(Counts, {key: [0] for key in wrong}, "test")
    assert caught.value.advice == said
