"""Which resources are measured, and how."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from nas_core.base.registry import ManyOf
from nas_core.base.settings import Distinct, Section
from nas_core.costs.profiler import PROFILERS
from nas_core.records.resources import resource_of


class ProfileConfig(Section):
    """Which resources are measured, and how; a profiler's settings may also stand here directly."""

    resources: Distinct[str] = Field(
        ["flops", "params", "activation_bytes", "latency_ms"], description="Resources to measure."
    )
    networks: int = Field(12, ge=0, le=10_000, description="Whole networks timed to say how additive latency is.")
    profilers: Annotated[dict[str, Any], ManyOf(PROFILERS)] = Field(
        default_factory=lambda: ManyOf(PROFILERS).defaults(),
        description="How each profiler measures.",
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_where_they_belong(cls, data: Any) -> Any:
        """``repeats: 5`` as ``profilers: {latency: {repeats: 5}}``, for whichever profiler alone has such a setting."""
        if not isinstance(data, Mapping):
            return data
        kept = {key: value for key, value in data.items() if key in cls.model_fields}
        profilers = kept.get("profilers", {})
        if not isinstance(profilers, Mapping):
            return data
        moved = {name: dict(section) for name, section in profilers.items() if isinstance(section, Mapping)}
        for key, value in data.items():
            owners = [name for name in PROFILERS if key in PROFILERS[name].Settings.model_fields]
            if key in kept or len(owners) != 1:
                continue
            moved.setdefault(owners[0], {})[key] = value
        rest = {key: value for key, value in data.items() if not any(key in section for section in moved.values())}
        return {**rest, "profilers": {**profilers, **moved}} if moved else data

    @field_validator("resources")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            try:
                resource_of(name)
            except Exception as error:
                raise ValueError(getattr(error, "expected", str(error))) from None
        return names
