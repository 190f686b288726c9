"""What networks are trained for: data, and what is measured on it. No torch at import."""

from nas_core.base.discovery import import_registered
from nas_core.base.settings import Section
from nas_core.workloads.workload import WORKLOADS, Workload

for package in (__name__, f"{__name__}.images"):
    import_registered(package)

__all__ = ["WORKLOADS", "Workload", "build_workload"]


def build_workload(config: Section) -> Workload:
    """The workload that a study's ``data`` section names, with its settings; reads nothing yet."""
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    kind = WORKLOADS[fields.pop("kind" if "kind" in fields else "name")]
    return kind(kind.Settings.model_validate(fields))
