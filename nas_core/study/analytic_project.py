"""One designed network in its store: what is designed, what is trained, what is missing.

::

    design.yaml              the configuration
    design.json              the program's answer, as `mathnas design --json` prints it
    figures/                 entropy per stage, the structure to scale
    winner/winner/           weights, architecture.json, program.pt2, result.json
    training.json            the trained network's row
    registered.json          the registered model, loaded back and tested

An output names the content id of its inputs; one whose inputs have changed
since counts as missing.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from nas_core.base.errors import StoreError
from nas_core.base.identity import content_id
from nas_core.base.settings import load_as
from nas_core.deepmad.formulas import objective_named
from nas_core.deepmad.solver import design
from nas_core.deepmad.structure import DesignedNetwork, Structure
from nas_core.deepmad.tree import Progress
from nas_core.records.store import Store
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.brought import trained_metric
from nas_core.study.sources import SOURCES, DataNotes
from nas_core.study.stages import CONFIG, DESIGN, DESIGN_CONFIG, REGISTERED, TRAINING, trained_files
from nas_core.training.settings import TRAINING_VERSION
from nas_core.workloads import build_workload

WINNER = "winner"


class DesignProject:
    """A design's configuration and store."""

    def __init__(self, config: AnalyticConfig, store: Store) -> None:
        self.config, self.store = config, store

    @classmethod
    def create(cls, config: AnalyticConfig, root: str) -> "DesignProject":
        """The design with this configuration under ``root``; what the store already holds is kept.

        Raises:
            StoreError: if a study lives there.
        """
        store = Store(root)
        if store.exists(CONFIG):
            raise StoreError(root, f"a study ({CONFIG})", "a root of its own for a design")
        project = cls(config, store)
        project.data = DataNotes.of(build_workload(config.data), counted=False)  # as they are now
        store.write_if_changed(DESIGN_CONFIG, config.as_yaml())
        noted = {"config_id": project._data_id, "data": asdict(project.data)}
        store.write_if_changed(SOURCES, (json.dumps(noted, indent=1) + "\n").encode())
        return project

    @classmethod
    def open(cls, root: str) -> "DesignProject":
        """The design under ``root``.

        Raises:
            StoreError: if there is none.
        """
        store = Store(root, create=False)
        if not store.exists(DESIGN_CONFIG):
            raise StoreError(root, f"no {DESIGN_CONFIG}", "the folder of a design")
        text, source = store.read_bytes(DESIGN_CONFIG), store.uri(DESIGN_CONFIG)
        return cls(load_as(AnalyticConfig, text, source=source), store)

    @cached_property
    def data(self) -> DataNotes:
        """What was noted of the data when the design was last made; else what they say now."""
        kept, mine = self.output(SOURCES) or {}, self._data_id
        if kept.get("config_id") == mine:
            return DataNotes.from_dict(kept["data"])
        return DataNotes.of(build_workload(self.config.data), counted=False)

    @property
    def _data_id(self) -> str:
        return content_id(self.config.data.model_dump(mode="json"))

    def status(self) -> dict[str, str]:
        """``done`` or ``missing`` for what `mathnas run-design` does."""
        is_trained = self.training is not None
        registered = self.output(REGISTERED) or {}
        is_done = {
            "design": self.answer is not None,
            "train": is_trained,
            "register": is_trained and registered.get("inputs") == self.training_inputs,
        }
        return {name: "done" if done else "missing" for name, done in is_done.items()}

    def output(self, path: str) -> dict[str, Any] | None:
        """A stored JSON object; None where there is none."""
        if not self.store.exists(path):
            return None
        data = self.store.read_json(path)
        if not isinstance(data, dict):
            raise StoreError(self.store.uri(path), type(data).__name__, "a JSON object", "Delete the file, run again.")
        return data

    # the answer

    @property
    def answer(self) -> dict[str, Any] | None:
        """The stored answer to this program, searched for as far as the configuration asks; None if there is none."""
        data, program = self.output(DESIGN), self.config.program
        if data is None or data.get("program_id") != self.program_id:
            return None
        far_enough = data["gap"] <= program.gap or data["search"] == self._search
        return data if far_enough else None

    @property
    def program_id(self) -> str:
        """Id of what is solved: the program, for images of the data's channels."""
        return self.config.program.program_id(self.data.sample.shape[0])

    @property
    def _search(self) -> dict[str, float]:
        return {"gap": self.config.program.gap, "cpu_s": self.config.program.cpu_s, "seed": self.config.seed}

    def solve(self, report: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Solve the program and store the answer with its figures.

        Raises:
            InfeasibleError: if nothing keeps the limits, with what is attainable.
        """
        program, search = self.config.program, self._search
        objective = objective_named(program.objective)
        found = design(
            program.build_domain(self.data.sample.shape[0]),
            program.build_limits(),
            objective,
            gap=program.gap,
            cpu_s=program.cpu_s,
            seed=self.config.seed,
            report=report,
        )
        from nas_core.deepmad.drawings import draw_design  # matplotlib: only where something is drawn

        with tempfile.TemporaryDirectory() as folder:
            draw_design(found, objective, Path(folder))
            for figure in Path(folder).iterdir():
                self.store.write_bytes(f"figures/{figure.name}", figure.read_bytes())
        answer = {**found.as_dict(), "program_id": self.program_id, "search": search}
        self.store.write_json(DESIGN, answer)
        return answer

    # the training

    @property
    def network(self) -> DesignedNetwork:
        """The answer as a network for the configured images.

        Raises:
            StoreError: if nothing is designed yet.
        """
        answer = self.answer
        if answer is None:
            raise StoreError(self.store.uri(DESIGN), "no answer to this program", "a solved program")
        sample = self.data.sample
        structure = Structure.from_dict(answer)
        return DesignedNetwork(structure=structure, in_channels=sample.shape[0], num_classes=sample.num_outputs)

    @property
    def training_inputs(self) -> str:
        """Content id of all that the training depends on; raises as ``network``."""
        config = self.config
        known = {"network": self.network.as_dict(), "train": config.train.inputs, "data": dict(self.data.identity)}
        metric = trained_metric(config).name
        return content_id({**known, "metric": metric, "seed": config.seed, "version": TRAINING_VERSION})

    @property
    def training(self) -> dict[str, Any] | None:
        """The stored row of the trained network; None if this training is not done, or its files are gone."""
        data = self.output(TRAINING)
        if data is None or self.answer is None or data.get("inputs") != self.training_inputs:
            return None
        row: dict[str, Any] = data["networks"][0]
        return row if all(self.store.exists(path) for path in trained_files(row)) else None

    def record_training(self, result: dict[str, Any]) -> dict[str, Any]:
        """Store what the training returned, with what the program says of the network."""
        answer = self.answer
        assert answer is not None
        costs = {name: answer[name] for name in ("flops", "params", "rho")}
        row = {"role": "winner", "costs": costs, "design": what_is_proved(answer), **result}
        self.store.write_json(TRAINING, {"inputs": self.training_inputs, "networks": [row]})
        return row


def what_is_proved(answer: Mapping[str, Any]) -> dict[str, float]:
    """The answer's score, the bound on every other's, the gap between them, and CPU seconds of solving."""
    return {**{name: answer[name] for name in ("score", "bound", "gap")}, "solver_cpu_s": answer["cpu_s"]}
