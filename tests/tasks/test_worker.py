"""A study as it travels to workers."""

from pathlib import Path

from nas_core.study.study import Study
from tasks.worker import study_job


def test_a_worker_goes_to_the_drivers_folder(tabular_config, tmp_path, monkeypatch):
    """Its own code finds there what it finds in `mathnas check`; where a machine has no such folder, it stays."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    study = Study.create(tabular_config, str(tmp_path / "study"))
    monkeypatch.chdir(here)
    job = study_job(study)
    monkeypatch.chdir(elsewhere)
    job.study()
    assert Path.cwd() == here
    monkeypatch.chdir(elsewhere)
    here.rmdir()
    job.study()
    assert Path.cwd() == elsewhere
