"""The parts of an installation that are optional, and one line where a command needs one that is not there.

What is always installed solves, and opens and asks a stored study; see
``[project.optional-dependencies]`` in ``pyproject.toml`` for the rest.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from nas_core.base.errors import ConfigError

REPORT = ("jinja2", "matplotlib")
NETWORKS = ("safetensors", "sklearn", "timm", "torch", "torchvision")
SERVERS = ("prefect", "ray", "mlflow")
EXPORT = ("onnx", "onnxruntime", "onnxscript")
# extra -> the modules it brings; the smaller ones first, so that a module is named with the least that brings it
MODULES = {
    "report": REPORT,
    "networks": NETWORKS,
    "export": (*NETWORKS, *EXPORT),
    "run": (*REPORT, *NETWORKS, *EXPORT, "mlflow", "prefect", "ray"),
}


def need(extra: str, command: str) -> None:
    """Stop before anything is done where the extra is not installed as a whole, or in other versions; imports nothing.

    Raises:
        ConfigError: naming what is missing, or of which version it is, and how to install it.
    """
    missing = [module for module in MODULES[extra] if not _is_installed(module)]
    if missing:
        raise _not_installed(command, missing, extra)
    if extra == "run":
        _check_servers_versions(command)


def _check_servers_versions(command: str) -> None:
    """Prefect, Ray and MLflow change between major versions; another package may have asked for another one."""
    from packaging.requirements import Requirement  # a requirement of all three

    with suppress(PackageNotFoundError):  # run from its folder, without being installed
        for wanted in map(Requirement, requires("mathnas") or ()):
            if wanted.name not in SERVERS or "run" not in str(wanted.marker):
                continue
            found = version(wanted.name)
            if not wanted.specifier.contains(found, prereleases=True):
                expected = f"{wanted.name}{wanted.specifier}"
                raise ConfigError(command, f"{wanted.name} {found}", expected, "Install it: pip install 'mathnas[run]'")


def _is_installed(module: str) -> bool:
    """A folder of that name where the command was given (`ray/`, say) is importable too, but comes from no file."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def not_installed(error: ModuleNotFoundError) -> ConfigError | None:
    """A failed import in words, where an extra brings the module; None for any other."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if module in modules), None)
    return None if extra is None else _not_installed("this command", [module], extra)


def _not_installed(command: str, missing: Iterable[str], extra: str) -> ConfigError:
    found = f"no {', '.join(missing)}"
    return ConfigError(
        command, found, f"what the extra '{extra}' brings", f"Install it: pip install 'mathnas[{extra}]'"
    )
