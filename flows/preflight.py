"""What is checked before any compute is spent: data, space, limits, store, addresses."""

import os
import socket
from urllib.parse import urlsplit

from nas_core.config import StudyConfig
from nas_core.deepmad.config import AnalyticConfig
from nas_core.design import check_base
from nas_core.errors import ClusterError, ConfigError
from nas_core.program import parse_limit
from nas_core.scoring import check_scorer
from nas_core.store import Store
from nas_core.study import Study

SECONDS_TO_ANSWER = 10.0


def preflight(config: StudyConfig, root: str) -> None:
    """Raise the first mistake that would otherwise be met later.

    Raises:
        NasError: with the field, path or address, what was found and what is allowed.
    """
    study = Study(config, Store(root))
    _check_writable(study.store)
    for text in config.select.limits:
        _check_limit(study, text)
    if config.scorer.kind != "tabular":
        from nas_core.data import check_data

        check_data(config.data)
    check_scorer(config, study.space)
    check_base(study.space, config.design.base)
    _check_addresses()


def preflight_design(config: AnalyticConfig, root: str) -> None:
    """Raise the first mistake of a design that would otherwise be met later, as ``preflight`` does."""
    from nas_core.data import check_data

    config.program.build_domain()
    config.program.build_limits()
    check_data(config.data.model_copy(update={"train_examples": config.train.train_examples}))
    _check_writable(Store(root))
    _check_addresses()


def _check_writable(store: Store) -> None:
    store.write_bytes(".writable", b"")
    store.delete(".writable")


def _check_addresses() -> None:
    _check_address("RAY_ADDRESS", os.environ.get("RAY_ADDRESS", ""), schemes=("", "ray"))
    _check_address("PREFECT_API_URL", os.environ.get("PREFECT_API_URL", ""), schemes=("http", "https"))
    _check_address("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI", ""), schemes=("http", "https"))


def _check_limit(study: Study, text: str) -> None:
    resource = parse_limit(text).resource
    known = list(study.profiler_ids)
    if not any(name == resource or name.rpartition("_")[0] == resource for name in known):
        expected = f"a resource of profile.resources: {', '.join(known)}"
        raise ConfigError(f"select.limits: {text!r}", resource, expected)


def _check_address(variable: str, address: str, schemes: tuple[str, ...]) -> None:
    if address in ("", "auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme not in schemes:
        return  # a database or a file: its own client says what is wrong with it
    try:
        port = parts.port or {"http": 80, "https": 443, "ray": 10001}.get(parts.scheme, 6379)
        with socket.create_connection((parts.hostname or "", port), timeout=SECONDS_TO_ANSWER):
            return
    except (OSError, ValueError) as error:
        advice = f"Start it, correct {variable}, or unset it to use the embedded one."
        shown = address if parts.password is None else address.replace(parts.password, "***")
        raise ClusterError(variable, shown, f"an address that answers ({error})", advice) from None
