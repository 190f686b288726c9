"""`mathnas plugins` lists what can be named in a study; `mathnas check` holds a plug-in against the contracts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.printing import AsJson, print_json
from nas_core.base.errors import NasError, PluginError

if TYPE_CHECKING:
    from nas_core.testing import Failure


def plugins(as_json: AsJson = False) -> None:
    """List what a study can name: families, blocks, alternatives, workloads, scorers, profilers, searchers; plug-ins'.

    Others' are those of installed packages with an entry point `mathnas.plugins`.
    """
    rows, broken = listed()
    if as_json:
        print_json({"things": rows, "not_importable": broken})
        return
    for kind in dict.fromkeys(row["kind"] for row in rows):
        print(f"{kind}:")
        for row in (row for row in rows if row["kind"] == kind):
            where = "" if row["from"] == "mathnas" else f"  [{row['from']}]"
            settings = f"  ({', '.join(row['settings'])})" if row["settings"] else ""
            print(f"  {row['name']:<18} {row['summary']}{settings}{where}")
    for name, message in broken.items():
        print(f"not importable: {name}: {message}")


def listed() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Every registered class as plain data; and the installed plug-ins that do not import, with why."""
    import nas_core.study.config  # noqa: F401 (registers our own)
    from nas_core.base.plugins import import_plugin, installed
    from nas_core.base.registry import summary_of
    from nas_core.testing import registries

    broken = {}
    for name in installed():
        try:
            import_plugin(name)
        except NasError as error:
            broken[name] = str(error)
    rows = []
    for kind, registry in registries().items():
        for name in registry:
            thing = registry[name]
            rows.append(
                {
                    "kind": kind,
                    "name": name,
                    "from": str(registry.origin(name)),
                    "version": thing.version,
                    "summary": summary_of(thing),
                    "settings": list(thing.Settings.model_fields),
                    "schema": thing.Settings.model_json_schema(),
                }
            )
    return rows, broken


def check(
    plugin: Annotated[
        str,
        typer.Argument(
            help="A plug-in: a Python file, a folder with __init__.py, or a module; or a study's YAML, for all of its."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Hold everything that a plug-in registers against its protocol's contract, before anything is run.

    Of a study, its functions are called for a few of its networks, too.
    """
    from nas_core.testing import is_function, registries

    of_study = Path(plugin).suffix in (".yaml", ".yml")
    found = _of_study(plugin) if of_study else _of_plugin(plugin)
    if not found:
        expected = "at least one of: a family, block kind, alternative, workload, scorer, profiler, searcher"
        raise PluginError(plugin, "nothing registered", expected, "Register a class with `@SCORERS.add` or the like.")
    failures = [failure for mine in found.values() for failure in mine]
    if as_json:
        things = [{"kind": kind, "name": name, "failures": len(mine)} for (kind, name), mine in found.items()]
        print_json({"checked": things, "failures": list(map(str, failures))})
    else:
        for (kind, name), mine in found.items():
            lines = dict.fromkeys(f"  {failure.promise}: {failure.found}" for failure in mine)  # each once
            print(f"{kind} {name}: {'all promises kept' if not mine else f'{len(lines)} not kept'}")
            print("\n".join(lines), end="\n" if lines else "")
        if not of_study and any(is_function(registries()[kind][name]) for kind, name in found):
            print(
                "`mathnas check STUDY.yaml` calls functions for networks of the study: examples may be none for them."
            )
    if failures:
        raise typer.Exit(2)


def _of_plugin(name: str) -> "dict[tuple[str, str], list[Failure]]":
    import nas_core.study.config  # noqa: F401 (registers our own)
    from nas_core.base.plugins import import_plugin
    from nas_core.testing import check_all

    return check_all(import_plugin(name).origin)


def _of_study(path: str) -> "dict[tuple[str, str], list[Failure]]":
    from nas_core.base.plugins import import_plugin
    from nas_core.study.config import read_config
    from nas_core.testing import check_all, check_functions

    config = read_config(path)
    found = {key: mine for name in config.plugins for key, mine in check_all(import_plugin(name).origin).items()}
    for key, failures in check_functions(config).items():
        found[key] = [*found.get(key, []), *failures]
    return found
