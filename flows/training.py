"""Stage `train`: the winner and what it is compared with, by the full recipe."""

from prefect import flow

import tasks.training as work
from flows.stage import stage_run
from nas_core.base.errors import ConfigError
from nas_core.families.family import FAMILIES
from nas_core.study.config import StudyConfig


@flow(name="train", flow_run_name="train-{config.name}", validate_parameters=True)
def train(config: StudyConfig, root: str) -> None:
    """Train the winner; what was trained from the same inputs is not trained again."""
    if not FAMILIES[config.space.kind].are_networks:
        raise ConfigError(f"space.kind {config.space.kind}", "choices", "a family of networks, to train one")
    with stage_run(config, root, "train") as run:
        output = work.train(run.study)
        run.num_new, run.num_reused = output["num_new"], output["num_reused"]
        run.num_failed = len(output["diverged"])
        run.device = output["networks"][0].get("device", "")
