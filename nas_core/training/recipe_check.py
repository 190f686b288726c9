"""Whether a recipe serves the data and the networks that it is to train: asked before anything is computed.

A training asks the same once it has its network; by then hours may have gone into others.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from nas_core.base.errors import ConfigError, NasError
from nas_core.training.group import of_size
from nas_core.training.optimizers import Schedule, make_optimizer
from nas_core.training.settings import OWN, Recipe
from nas_core.training.stochastic import dropout, has_paths
from nas_core.training.teacher import OwnModel, fetched_by, load_teacher
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Workload

CPU = torch.device("cpu")


def check_recipe(
    recipe: Recipe,
    where: str,
    workload: Workload,
    shape: Sequence[int],
    *,
    networks: Iterable[nn.Module] = (),
    own_model: OwnModel | None = None,
    workers: int = 1,
    sync_norm: bool = False,
) -> None:
    """Raises ConfigError, calling the recipe ``where``, if a training by it would stop at its beginning.

    ``shape`` is an input's, as networks take it. ``networks`` are some of those that it is to train, among them every
    block that they may have, and are made as they are asked for; none where they are not known yet. ``own_model`` is
    the teacher ``own``. Teachers that are known by a URI are not fetched: who has them may be away.
    """
    checks: list[Callable[[], None]] = [
        lambda: _check_targets(recipe, workload),
        lambda: _check_batches(recipe, workload, workers, sync_norm),
        lambda: _check_inputs(recipe, workload, shape),
        lambda: _check_networks(recipe, networks),
        lambda: _check_teacher(recipe, workload, shape, own_model),
    ]
    for check in checks:
        try:
            check()
        except NasError as error:
            field = error.where.removeprefix("recipe")
            raise ConfigError(f"{where}{field}", error.found, error.expected, error.advice) from None


def _check_targets(recipe: Recipe, workload: Workload) -> None:
    neutral = {field: Recipe.model_fields[field].default for field in workload.refused}
    found = {field: getattr(recipe, field) for field, value in neutral.items() if getattr(recipe, field) != value}
    if not found:
        return
    field, *others = found
    expected = f"{neutral[field] or 'none'} for data of kind {workload.name}: {workload.refused[field]}"
    advice = f"So has to be {', '.join(f'{each} {neutral[each] or 0}' for each in others)}." if others else ""
    raise NasError(f"recipe.{field}", found[field], expected, advice)


def _check_batches(recipe: Recipe, workload: Workload, workers: int, sync_norm: bool) -> None:
    num_train, _ = workload.num_examples()
    batch_size = Schedule.of(recipe, num_train).batch_size
    of_size(workers).check(batch_size, alike=sync_norm and recipe.accumulate > 1)


def _check_inputs(recipe: Recipe, workload: Workload, shape: Sequence[int]) -> None:
    for field in ("mixup", "cutmix", "erase"):
        if (found := getattr(recipe, field)) and not workload.sample.is_image:
            raise NasError(f"recipe.{field}", found, "0: inputs are no images")
    if recipe.policy != "none":
        workload.augment_stored(torch.zeros(1, *shape, dtype=torch.uint8), recipe.policy, recipe.magnitude)


def _check_networks(recipe: Recipe, networks: Iterable[nn.Module]) -> None:
    """What is asked of every network of the first one; that paths can be left out, of any."""
    count = 0
    for network in networks:
        if not count:
            make_optimizer(network, recipe)
            with dropout(network, recipe.dropout):
                pass
        count += 1
        if not recipe.drop_path or has_paths(network):
            return
    if count:
        expected = "0: no block of these networks has a path to leave out (an attribute `drop_path`, as timm's have)"
        raise NasError("recipe.drop_path", recipe.drop_path, expected)


def _check_teacher(recipe: Recipe, workload: Workload, shape: Sequence[int], own_model: OwnModel | None) -> None:
    if recipe.teacher is None or fetched_by(recipe.teacher):
        return
    sample = workload.sample
    teach = load_teacher(recipe.teacher, sample.num_outputs, shape, Normalisation(), CPU, own_model)
    if recipe.teacher.model == OWN:
        return  # it takes what the networks take that are made of it, and gives what they give
    found = tuple(teach(torch.zeros(2, *shape)).shape[1:])
    wanted = sample.outputs_for(shape)
    if found != wanted:
        expected = f"{' x '.join(map(str, wanted))}, as the data want"
        raise NasError("recipe.teacher", f"outputs of {' x '.join(map(str, found))}", expected)
