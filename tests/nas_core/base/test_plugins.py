"""A plug-in's files: all of a folder's count and travel, a file is imported where it lies."""

import os
import shutil
import sys

import pytest

from nas_core.base import plugins
from nas_core.base.errors import PluginError
from nas_core.base.plugins import Ticket, find, import_carried, imported


@pytest.fixture(autouse=True)
def _process_as_it_was():
    modules, path, known = dict(sys.modules), list(sys.path), dict(imported)
    yield
    sys.path[:] = path
    imported.clear()
    imported.update(known)
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


@pytest.fixture
def package(tmp_path):
    """A folder that reads a file of its own when it is imported."""
    folder = tmp_path / "here" / "teamnas"
    for name in ("data", "__pycache__", ".git", "study"):
        (folder / name).mkdir(parents=True)
    read = "from pathlib import Path\nVALUE = (Path(__file__).parent / 'data' / 'weights.txt').read_text()\n"
    (folder / "__init__.py").write_text(read)
    (folder / "data" / "weights.txt").write_text("2")
    (folder / "measure.sh").write_text("#!/bin/sh\n")
    (folder / "measure.sh").chmod(0o755)
    for name in ("__pycache__/x.pyc", ".git/HEAD", ".hidden", "study/.lease.lock", "study/report.html"):
        (folder / name).write_text("not the plug-in's")
    return folder


def in_a_worker(plugin, folder):
    """The plug-in's module, as a worker imports it that has only what was carried."""
    import_carried(Ticket.of(plugin), plugin.packed, folder)
    return sys.modules[plugin.module]


def test_all_files_of_a_folder_travel(package, tmp_path):
    plugin = find(str(package))
    assert set(plugin.files) == {f"teamnas/{name}" for name in ("__init__.py", "data/weights.txt", "measure.sh")}
    packed = plugin.packed()
    shutil.rmtree(package)
    import_carried(Ticket.of(plugin), lambda: packed, tmp_path / "there")
    module = sys.modules[plugin.module]
    assert module.VALUE == "2"
    assert os.access(os.path.join(os.path.dirname(module.__file__), "measure.sh"), os.X_OK)


def test_a_folders_data_are_part_of_what_it_is_known_by(package):
    before = find(str(package)).code
    (package / ".hidden").write_text("other")
    (package / "study/report.html").write_text("other")
    assert find(str(package)).code == before
    (package / "data/weights.txt").write_text("3")
    assert find(str(package)).code != before


def test_a_folder_that_is_too_large_to_carry_is_refused(package):
    with (package / "large.bin").open("wb") as file:
        file.truncate(plugins.MOST_BYTES)
    with pytest.raises(PluginError, match=r"found 50 MB in 4 files, expected at most 50 MB\. .*PathText") as raised:
        find(str(package))
    assert "\n" not in str(raised.value)


def test_what_was_cleaned_away_of_an_unpacked_folder_is_unpacked_again(package, tmp_path):
    plugin, there = find(str(package)), tmp_path / "there"
    in_a_worker(plugin, there)
    (there / plugin.code / "teamnas/data/weights.txt").unlink()
    imported.clear()
    assert in_a_worker(plugin, there).VALUE == "2"


def test_a_file_finds_its_neighbours_where_the_driver_has_it(tmp_path):
    (tmp_path / "neighbour_of_size.py").write_text("BONUS = 7\n")
    (tmp_path / "size.py").write_text("from neighbour_of_size import BONUS\n")
    module = in_a_worker(find(str(tmp_path / "size.py")), tmp_path / "there")
    assert (module.BONUS, module.__file__) == (7, str(tmp_path / "size.py"))
    assert sys.path[0] != str(tmp_path), "nothing there is taken for another module"


def test_a_file_without_its_neighbours_names_the_way_out(tmp_path):
    (tmp_path / "size.py").write_text("from neighbour_of_size import BONUS\n")
    plugin = find(str(tmp_path / "size.py"))
    packed = plugin.packed()
    (tmp_path / "size.py").write_text("# another by now: what the driver imported is run\n")
    with pytest.raises(PluginError, match=r"No module named 'neighbour_of_size'.*in a folder with an __init__\.py"):
        import_carried(Ticket.of(plugin), lambda: packed, tmp_path / "there")
