"""Which family of networks is searched."""

from typing import Any

from pydantic import Field

from nas_core.base.settings import Section


def _list_spaces(schema: dict[str, Any]) -> None:
    from nas_core.families import SPACES  # which builds on this module

    schema["enum"] = sorted(SPACES)


class SpaceConfig(Section):
    """The family of networks: a registered one by name, or a YAML file that defines one."""

    name: str = Field(
        "nasbench-macro",
        description="Registered search space (see `mathnas spaces`).",
        json_schema_extra=_list_spaces,
    )
    file: str | None = Field(None, description="YAML file that defines a space; replaces `name`.")
    params: dict[str, int | float | str | bool] = Field(
        default_factory=dict, description="Arguments of the registered space, such as stem_channels or resolution."
    )
