import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nas_core.base.errors import StoreError
from nas_core.report.summary import CalibrationSummary, StudySummary
from tests.nas_core.report.studies import RAGGED, SMALL, make_study, not_run


@pytest.mark.parametrize("study", [make_study(SMALL), make_study(RAGGED), not_run(make_study())])
def test_a_summary_survives_json(study):
    assert StudySummary.from_dict(json.loads(json.dumps(study.to_dict(), allow_nan=False))) == study


def test_a_summary_survives_its_file(tmp_path):
    study = make_study()
    study.write(tmp_path / "report.json")
    assert StudySummary.read(tmp_path / "report.json") == study
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_numbers_that_json_lacks_and_numpy_scalars_survive():
    study = replace(
        make_study(),
        calibration=CalibrationSummary(num_networks=np.int64(3), kendall=float("nan"), coverage=float("inf")),
    )
    again = StudySummary.from_dict(json.loads(json.dumps(study.to_dict(), allow_nan=False))).calibration
    assert again.num_networks == 3
    assert np.isnan(again.kendall)
    assert again.coverage == float("inf")


@pytest.mark.parametrize("data", [{}, {"summary_version": 99}, {"summary_version": 1, "name": "x", "nonsense": 1}])
def test_what_is_no_summary_is_refused(data):
    with pytest.raises(StoreError):
        StudySummary.from_dict(data)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_broken_file_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(StoreError):
        StudySummary.read(tmp_path / "report.json")


def test_the_winner_is_the_verified_one_else_the_solvers_first():
    study = make_study()
    assert study.winner == study.verification.winner
    assert replace(study, verification=None).winner == study.selection.networks[0].genotype
    assert not_run(study).winner is None


def test_recorded_costs_win_over_sums():
    study = make_study()
    assert study.costs_of(study.base)["flops"] == study.summed_costs(study.base)["flops"]
    assert replace(study, base_costs={"flops": 1.0}, networks=(), training=None).costs_of(study.base)["flops"] == 1.0


def test_importing_the_report_loads_no_heavy_package():
    code = "import nas_core.report, sys; assert not {'torch', 'matplotlib', 'jinja2', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
