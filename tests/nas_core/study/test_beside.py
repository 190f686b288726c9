"""Files beside a study: whose they are."""

import json
from pathlib import Path

import pytest

from nas_core.study.beside import of_another
from nas_core.study.stages import INSIDE
from nas_core.study.study import Study
from tests.flows.test_export_command import model_config, run_here


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return run_here(model_config(), tmp_path_factory.mktemp("shrunk") / INSIDE)


def test_what_lies_beside_a_study_is_its_winners_or_is_said_to_be_of_another(study):
    folder = Path(study.store.root).parent
    assert of_another(study) == ""  # nothing lies there
    winner = study.output("training.json")["networks"][0]
    for own, said in ((winner["sha256"][winner["weights_path"]], False), ("another", True)):
        (folder / "architecture.json").write_text(json.dumps({"weights_sha256": own}))
        assert (f"mathnas export {folder}/study --to {folder}" in of_another(study)) == said
