"""A user's own code: imported because a study names it, known by its source, carried to the workers.

A plug-in is an importable module (``my_pkg``), a file (``./blocks.py``) or a
folder that is a package (``./my_pkg``), the latter two beside the study's YAML.
Importing it registers what it brings. What comes from it carries the hash of
its source in its id, so changed code measures again instead of mixing. Of a
folder all files count and travel, data too; of a file itself alone.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from nas_core.base.errors import PluginError
from nas_core.base.identity import files_below
from nas_core.base.registry import OURS, Origin, Registry

ENTRY_POINTS = "mathnas.plugins"
HASH_DIGITS = 12
MOST_BYTES = 50_000_000  # of a folder's files, each of which is hashed and carried
EXECUTABLE = 0o755 << 16  # as a zip archive says it
BESIDE = (
    "What a file needs beside it goes with it in a folder with an __init__.py (`from .helper import ...`), "
    "which the study then names."
)
NO_PLUGINS = {"nas_core", "tasks", "flows"}  # what stands in them is registered already; importing it again breaks it


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plug-in's source: ``name`` as the study writes it, ``module`` as Python knows it, ``code`` its hash.

    ``files`` are its files, relative to ``folder``.
    """

    name: str
    module: str
    folder: Path
    files: tuple[str, ...]
    code: str
    distribution: str = ""
    carried: bool = False  # to a worker, which has no other source of it

    @property
    def origin(self) -> Origin:
        return Origin(source=self.name, distribution=self.distribution, code=self.code)

    @property
    def is_file(self) -> bool:
        """Whether it is a file that the study names."""
        return is_path(self.name) and self.files == (Path(self.name).name,)

    def packed(self) -> bytes:
        """The source as a zip archive, the same for the same source."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in self.files:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = EXECUTABLE if os.access(self.folder / name, os.X_OK) else 0
                archive.writestr(entry, (self.folder / name).read_bytes())
        return buffer.getvalue()


imported: dict[str, Plugin] = {}  # of this process, by name


def is_path(name: str) -> bool:
    """Whether a plug-in is named by its file or folder."""
    return name.endswith(".py") or "/" in name or "\\" in name or name.startswith((".", "~"))


def import_plugins(names: Sequence[str]) -> None:
    """Import the plug-ins that this process does not know yet, or whose source has changed.

    Raises:
        PluginError: naming the plug-in, and the line of it that failed.
    """
    for name in names:
        import_plugin(name)


def import_plugin(name: str) -> Plugin:
    """Import one plug-in; raises as ``import_plugins``."""
    known = imported.get(name)
    if known is not None and known.carried:
        return known
    found = find(name)
    if known is not None and known.code == found.code:
        return known
    return load(found)


def find(name: str) -> Plugin:
    """The plug-in's source, not imported.

    Raises:
        PluginError: if there is none.
    """
    if is_path(name):
        return _at_path(name, Path(os.path.expanduser(name)))
    module = installed().get(name, name)
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in NO_PLUGINS:
        raise PluginError(f"plugins: {name}", "a module of Python's or mathnas's own", "code of yours")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        advice = "Name an installed module, or a file or folder such as ./blocks.py beside the study's YAML."
        raise PluginError(f"plugins: {name}", "no module of this name", "a module that can be imported", advice)
    path = Path(spec.origin)
    return _described(name, module, path.parent if path.name == "__init__.py" else path, _distribution_of(module))


def installed() -> dict[str, str]:
    """Name -> module of the plug-ins that installed distributions offer as entry points of ``mathnas.plugins``."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _at_path(name: str, path: Path) -> Plugin:
    if path.is_dir() and (path / "__init__.py").is_file():
        return _described(name, path.name, path)
    if path.is_file() and path.suffix == ".py":
        return _described(name, path.stem, path)
    found = "a folder without __init__.py" if path.is_dir() else "nothing there" if not path.exists() else "no Python"
    raise PluginError(f"plugins: {name}", found, "a Python file, or a folder with an __init__.py")


def _described(name: str, module: str, path: Path, distribution: str = "") -> Plugin:
    folder = path.parent
    try:
        paths = sorted(files_below(path)) if path.is_dir() else [path]
        size = sum(each.stat().st_size for each in paths)
        if size > MOST_BYTES:
            found, expected = f"{size / 1e6:,.0f} MB in {len(paths):,} files", f"at most {MOST_BYTES / 1e6:,.0f} MB"
            advice = "All of it is carried to workers. Larger data stay elsewhere, their path a setting (PathText)."
            raise PluginError(f"plugins: {name}", found, expected, advice)
        files = tuple(str(each.relative_to(folder)) for each in paths)
        code = _hash_of(folder, files)
    except (OSError, UnicodeError) as error:
        raise PluginError(f"plugins: {name}", str(error), "files that can be read") from None
    # a file's or folder's module carries the hash in its name: no other module is shadowed, changed source is another
    module = f"mathnas_plugin_{module}_{code}" if is_path(name) else module
    return Plugin(name=name, module=module, folder=folder, files=files, code=code, distribution=distribution)


def _hash_of(folder: Path, files: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes() + b"\0")
    return digest.hexdigest()[:HASH_DIGITS]


def _distribution_of(module: str) -> str:
    top = module.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else ""


def load(plugin: Plugin) -> Plugin:
    """Import the plug-in's modules, registering what they bring; what it brought before is forgotten."""
    _forget(plugin)
    _purge(plugin.module)
    with _registering(plugin):
        _import(plugin)
    imported[plugin.name] = plugin
    return plugin


def _forget(plugin: Plugin) -> None:
    for registry in Registry.all_of_them:
        registry.forget(plugin.origin)


def _import(plugin: Plugin) -> ModuleType:
    if not plugin.module.startswith("mathnas_plugin_"):
        return importlib.import_module(plugin.module)
    path = plugin.folder / plugin.files[0]
    top = [name for name in plugin.files if name.endswith("__init__.py")]
    if top:
        path = plugin.folder / min(top, key=len)
    spec = importlib.util.spec_from_file_location(
        plugin.module, path, submodule_search_locations=[str(path.parent)] if top else None
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[plugin.module] = module
    spec.loader.exec_module(module)
    return module


def _purge(module: str) -> None:
    """Forget the module and those below it, so that the next import reads the source again."""
    importlib.invalidate_caches()
    for name in [known for known in sys.modules if known == module or known.startswith(module + ".")]:
        del sys.modules[name]


@contextlib.contextmanager
def _registering(plugin: Plugin) -> Iterator[None]:
    """What is registered meanwhile is the plug-in's; whatever its code raises is a PluginError."""
    Registry.importing = plugin.origin
    try:
        yield
    except BaseException as error:
        _purge(plugin.module)
        _forget(plugin)
        if isinstance(error, PluginError | KeyboardInterrupt):
            raise
        where = f"plugins: {plugin.name}{_line_of(error, plugin)}"
        words = " ".join(str(error).split())[:300]
        advice = BESIDE if plugin.is_file and isinstance(error, ImportError | FileNotFoundError) else ""
        raise PluginError(where, f"{type(error).__name__}: {words}", "a module that imports", advice) from None
    finally:
        Registry.importing = OURS


def _line_of(error: BaseException, plugin: Plugin) -> str:
    """Where in the plug-in's own files the error arose."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    files = {str((plugin.folder / name).resolve()) for name in plugin.files}
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if str(Path(frame.filename).resolve()) in files
    ]
    return f", {Path(lines[-1].filename).name} line {lines[-1].lineno}" if lines else ""


# in workers, which need not have the plug-in's files


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a worker is told of a plug-in: enough to find its source in the study's store, and to know it again.

    ``folder`` is where the driver has it.
    """

    name: str
    module: str
    files: tuple[str, ...]
    code: str
    distribution: str
    folder: str

    @property
    def path(self) -> str:
        """Where in the study's store the source is."""
        return f"plugins/{self.code}.zip"

    @classmethod
    def of(cls, plugin: Plugin) -> "Ticket":
        return cls(
            name=plugin.name,
            module=plugin.module,
            files=plugin.files,
            code=plugin.code,
            distribution=plugin.distribution,
            folder=str(plugin.folder.absolute()),
        )


def import_carried(ticket: Ticket, packed: Callable[[], bytes], folder: Path) -> None:
    """Import the plug-in in a worker, from its packed source, which is unpacked below ``folder``.

    A file is imported where the driver has it, if this machine has it there, too: what it needs beside it is found
    then. Only source with the hash that the driver named is run.

    Raises:
        PluginError: if the source is another, or does not import here.
    """
    known = imported.get(ticket.name)
    if known is not None and known.code == ticket.code:
        return
    plugin = Plugin(
        name=ticket.name,
        module=ticket.module,
        folder=Path(ticket.folder),
        files=ticket.files,
        code=ticket.code,
        distribution=ticket.distribution,
        carried=True,
    )
    if plugin.is_file and _is_in(plugin.folder, ticket):
        sys.path.append(ticket.folder)  # after all others: nothing of theirs is to be taken for ours
    else:
        plugin = replace(plugin, folder=_unpacked(ticket, packed, folder / ticket.code))
        if not is_path(ticket.name):
            sys.path.insert(0, str(plugin.folder))
    load(plugin)


def _is_in(folder: Path, ticket: Ticket) -> bool:
    try:
        return _hash_of(folder, ticket.files) == ticket.code
    except OSError:
        return False


def _unpacked(ticket: Ticket, packed: Callable[[], bytes], place: Path) -> Path:
    """The folder with the source; what was changed there, or cleaned away in part, is unpacked again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):  # a node's workers start at the same time
        if not _is_in(place, ticket):
            shutil.rmtree(place, ignore_errors=True)
            _unpack(packed(), place)
    found = _hash_of(place, ticket.files)
    if found != ticket.code:
        raise PluginError(f"plugins: {ticket.name}", f"source {found}", f"{ticket.code}, which the driver imported")
    return place


def _unpack(packed: bytes, place: Path) -> None:
    """Written beside, then renamed: who is killed meanwhile leaves no part of it."""
    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(Path(aside) / "source")
            for entry in archive.infolist():
                if entry.external_attr == EXECUTABLE:
                    (Path(aside) / "source" / entry.filename).chmod(0o755)
        (Path(aside) / "source").rename(place)
