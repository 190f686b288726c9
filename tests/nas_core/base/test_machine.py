"""The machine: how many CPUs may be kept busy (affinity, quotas of cgroups), folders of a user's own."""

import os
import stat
import tempfile

import pytest

from nas_core.base.errors import NasError
from nas_core.base.machine import installed_versions, own_folder, usable_cpus

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),  # half a CPU runs one thread
        ("0::/", {"cpu.max": "max 100000"}, CORES),
        ("0::/box/inner", {"box/cpu.max": "100000 100000", "box/inner/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/a", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ("3:memory:/", {"cpu.max": "100000 100000"}, CORES),  # of another controller
        ("0::/", {"cpu.max": "what 100000"}, CORES),
        ("0::/", {}, CORES),
    ],
)
def test_quotas_of_cgroups_count(tmp_path, own, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert usable_cpus(tmp_path, tmp_path / "own") == min(quota, CORES)


def test_a_machine_without_cgroups_has_its_cores(tmp_path):
    assert usable_cpus(tmp_path, tmp_path / "none") == CORES


def test_a_users_folder_is_a_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_folder("plugins")
    assert own_folder("plugins") == folder
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    folder.rmdir()
    folder.parent.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.parent.symlink_to(tmp_path / "elsewhere")  # as another user would lead us
    with pytest.raises(NasError, match="found another user's"):
        own_folder("plugins")


def test_the_version_of_a_module_is_that_of_what_brings_it(tmp_path, monkeypatch):
    """As ONNX Runtime's, of which there is one package for CPUs and another for GPUs."""
    (tmp_path / "some_runtime.py").write_text("")
    (tmp_path / "some_runtime_gpu-1.2.dist-info").mkdir()
    (tmp_path / "some_runtime_gpu-1.2.dist-info" / "METADATA").write_text("Name: some-runtime-gpu\nVersion: 1.2\n")
    (tmp_path / "some_runtime_gpu-1.2.dist-info" / "top_level.txt").write_text("some_runtime\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_versions(["some_runtime", "some_other"]) == {"some_runtime": "1.2"}
