"""The MLflow store inside a study's folder, and how it survives that the folder is moved or copied.

MLflow writes down absolute places of artifacts, since it takes a relative one
for one below the process's own working directory. A study names its store
relative to its root instead, and sets MLflow's places right before they are
used: a copy would write into the original, a moved study find nothing. No mlflow here.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas_core.base.errors import StoreError
from nas_core.records.store import Store

DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
EMBEDDED = f"sqlite:///{DATABASE}"  # how the study's files call it: relative to the root
PLACES = (  # where MLflow keeps places of artifacts: table, column
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
DEFAULT_EXPERIMENT = 0  # MLflow's own, whose place is the working directory of whoever came first
PATIENCE_S = 20.0  # for another process that writes


def address(store: Store, ids: Mapping[str, Any]) -> str:
    """The tracking URI that ``tracking.json`` means, as `mlflow ui --backend-store-uri` takes it."""
    return f"sqlite:///{store.uri(DATABASE)}" if is_embedded(ids) and store.is_local else str(ids.get("uri", ""))


def is_embedded(ids: Mapping[str, Any]) -> bool:
    """Whether runs were logged to the study's own store; earlier versions wrote its absolute path."""
    uri = str(ids.get("uri", ""))
    return uri.startswith("sqlite:///") and uri.endswith(f"/{DATABASE}")


def artifacts_uri(store: Store) -> str:
    """Where artifacts belong, whatever links lead there."""
    return Path(os.path.realpath(store.uri(ARTIFACTS))).as_uri()


def can_be_settled(store: Store) -> bool:
    """Whether there is a database here that may be written; a copy on a read-only mount is read as it is."""
    return store.is_local and all(os.access(store.uri(path), os.W_OK) for path in ("", DATABASE))


def settle(store: Store) -> bool:
    """Set the places of artifacts to where the study is now; whether any was elsewhere.

    Raises:
        StoreError: if the database cannot be read or written.
    """
    if not store.is_local or not store.exists(DATABASE):
        return False
    here = artifacts_uri(store)
    try:
        with contextlib.closing(sqlite3.connect(store.uri(DATABASE), timeout=PATIENCE_S)) as database, database:
            elsewhere = [place for place in _roots(database) if place != here]
            for table, column in _columns(database):
                for place in elsewhere:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(place) + 1, place, len(place) + 1, f"{place}/"),
                    )
            _settle_default(database, here)
    except sqlite3.Error as error:
        raise StoreError(store.uri(DATABASE), str(error), "MLflow's database, which can be written") from None
    return bool(elsewhere)


def _roots(database: sqlite3.Connection) -> list[str]:
    """The folders ``mlartifacts`` that experiments are kept in."""
    if not _has(database, "experiments", "artifact_location"):
        return []
    rows = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    return [place for (place,) in rows if place and os.path.basename(place.rstrip("/")) == ARTIFACTS]


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    return ((table, column) for table, column in PLACES if _has(database, table, column))


def _has(database: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in database.execute(f"PRAGMA table_info({table})"))


def _settle_default(database: sqlite3.Connection, here: str) -> None:
    """What somebody logs to MLflow's default experiment stays inside the study, too."""
    if not _has(database, "experiments", "artifact_location"):
        return
    given, asked = (f"{here}/default", DEFAULT_EXPERIMENT), "FROM experiments WHERE experiment_id = ?"
    known = database.execute(f"SELECT artifact_location {asked}", given[1:]).fetchone()
    if known is not None and known[0] != given[0]:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", given)
