"""A small regression workload for tests: scikit-learn's diabetes, ten numbers a patient, a least error wanted."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from nas_core.workloads.datasets import DatasetWorkload
from nas_core.workloads.regression import REGRESSION, regression_loss
from nas_core.workloads.settings import SplitSettings
from nas_core.workloads.workload import Sample


@lru_cache(maxsize=1)
def patients() -> tuple[TensorDataset, TensorDataset]:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    inputs = torch.from_numpy(bunch.data[order])
    targets = torch.from_numpy((bunch.target[order] - 150) / 75)
    return TensorDataset(inputs[:342], targets[:342]), TensorDataset(inputs[342:], targets[342:])


class Diabetes(DatasetWorkload):
    """Progression of the disease of 442 patients, from ten measurements."""

    name = "diabetes"
    sample = Sample(shape=(10,), num_outputs=1)
    measured = tuple(REGRESSION.values())

    def datasets(self) -> Any:
        return patients()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        return regression_loss(outputs, targets)


def diabetes(**settings: Any) -> Diabetes:
    return Diabetes(SplitSettings(**{"validation_examples": 80, **settings}))
