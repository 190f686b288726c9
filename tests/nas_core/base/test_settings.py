"""Fields that name files."""

from pathlib import Path

from nas_core.base.callables import settings_of
from nas_core.base.settings import PathText, parse_as


def test_a_default_path_is_relative_to_the_file_as_a_given_one_is():
    def rated(values, *, source: PathText = "main.c", other: PathText | None = "other.c"):
        return 1.0

    settings = settings_of(rated, "rated")
    found = parse_as(settings, {"other": "given.c"}, "test", Path("/studies"))
    assert (found.source, found.other) == ("/studies/main.c", "/studies/given.c")
    assert parse_as(settings, {}, "test", Path("/studies")).other == "/studies/other.c"
    assert settings.model_validate_json(found.model_dump_json()) == found
