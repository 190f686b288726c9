"""What is checked before any compute is spent: data, space, limits, store, addresses."""

from nas_core.base.errors import ConfigError
from nas_core.program import parse_limit
from nas_core.records.store import Store
from nas_core.scoring import check_scorer
from nas_core.searchers.designs import check_base
from nas_core.study.analytic_config import AnalyticConfig
from nas_core.study.config import StudyConfig
from nas_core.study.fingerprints import check_same_images
from nas_core.study.stages import STAGES, Stage
from nas_core.study.study import Study
from tasks.addresses import check_addresses
from tasks.tracking import tracking_uri


def preflight(config: StudyConfig, root: str, until: Stage = "report") -> None:
    """Raise the first mistake that would otherwise be met later, in the stages up to ``until``.

    Servers are not asked: one that is away when a scheduled run begins may be back when it is needed.

    Raises:
        NasError: with the field, path or address, what was found and what is allowed.
    """
    from nas_core.workloads.images import check_data

    study = Study(config, Store(root))
    _check_writable(study.store)
    for text in config.select.limits:
        _check_limit(study, text)
    trains, is_tabular = STAGES.index(until) >= STAGES.index("train"), config.scorer.kind == "tabular"
    if trains or not is_tabular:
        check_data(config.data, config.train if trains else None)
    if trains:
        _check_classes(study)
    if until == "report":
        tracking_uri(study.store)
    check_scorer(config, study.space, study.evaluations() if is_tabular else ())
    check_same_images(study)
    check_base(study.space, config.design.base)


def preflight_design(config: AnalyticConfig, root: str) -> None:
    """Raise the first mistake of a design that would otherwise be met later, as ``preflight`` does."""
    from nas_core.workloads.images import check_data

    store = Store(root)
    config.program.build_domain()
    config.program.build_limits()
    check_data(config.data, config.train)
    _check_writable(store)
    tracking_uri(store)
    check_addresses()


def preflight_serving(root: str) -> None:
    """Raise what would otherwise be met by the first run that somebody starts from the page."""
    store = Store(root)
    _check_writable(store)
    tracking_uri(store)
    check_addresses()


def _check_classes(study: Study) -> None:
    """The table of a tabular scorer says nothing of images, so nothing else compares them with the space."""
    from nas_core.workloads.images import data_shape

    in_channels, _, num_classes = data_shape(study.config.data)
    have, want = (study.space.in_channels, study.space.num_classes), (in_channels, num_classes)
    if have[1] < want[1] or have[0] < want[0]:
        found = f"{want[1]} classes, {want[0]} channels"
        expected = f"{have[1]} classes and {have[0]} channels at most, as space {study.space.name} has"
        raise ConfigError("data", found, expected, "Run `--until verify`, or set them in space.params.")


def _check_writable(store: Store) -> None:
    store.write_bytes(".writable", b"")
    store.delete(".writable")


def _check_limit(study: Study, text: str) -> None:
    resource = parse_limit(text).resource
    known = list(study.profiler_ids)
    if not any(name == resource or name.rpartition("_")[0] == resource for name in known):
        expected = f"a resource of profile.resources: {', '.join(known)}"
        raise ConfigError(f"select.limits: {text!r}", resource, expected)
