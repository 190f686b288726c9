"""A study's own copy of what it read outside its store: space, data and code, in ``sources.json``.

They are read when a study is driven. From then on `select`, `status`, `report`, the
frames of a notebook and the workers of the run use the copy, so that a file which
is edited or gone changes nothing. ``changes`` reports what differs now where the
study is driven again, ``notices`` where it is only read.
"""

import contextlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nas_core.base.errors import DataError, NasError
from nas_core.base.identity import content_id
from nas_core.base.plugins import find, imported
from nas_core.base.registry import Registry
from nas_core.base.settings import Section, named_paths
from nas_core.costs import PROFILERS, is_measured, profiler_id, profiler_of
from nas_core.families import FAMILIES
from nas_core.records.store import Store, place_of
from nas_core.scoring.scorer import SCORERS
from nas_core.searchers import SEARCHERS
from nas_core.space.genotypes import SearchSpace
from nas_core.study.brought import family_of, scorer_of, space_of, workload_of
from nas_core.study.config import StudyConfig
from nas_core.workloads.workload import WORKLOADS, Sample, Workload

log = logging.getLogger(__name__)

SOURCES = "sources.json"
SECTIONS = dict.fromkeys(("space", "data", "metric", "scorer", "plugins", "profile"), True)  # that say what is read


@dataclass(frozen=True, kw_only=True)
class DataNotes:
    """What a workload said of its data when they were at hand; what a scorer does not look at is not counted."""

    sample: Sample
    identity: Mapping[str, Any]
    fingerprint: str
    num_examples: tuple[int, int] | None = None  # to train on and to validate on
    facts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, workload: Workload, *, counted: bool = True) -> "DataNotes":
        """The notes of data that are there; raises DataError where they are not."""
        try:
            fingerprint = workload.fingerprint()  # looks at the files as they are now, and the others at what it found
            return cls(
                sample=workload.sample,
                identity=workload.identity,
                fingerprint=fingerprint,
                num_examples=workload.num_examples() if counted else None,
                facts=tuple(workload.describe()) if counted else (),
            )
        except OSError as error:  # of a plug-in that opens a file of its own
            raise DataError(f"data: {workload.name}", error, "data that can be read") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DataNotes":
        counts = data["num_examples"]
        return cls(
            sample=Sample.from_dict(data["sample"]),
            identity=data["identity"],
            fingerprint=data["fingerprint"],
            num_examples=None if counts is None else (counts[0], counts[1]),
            facts=tuple((name, value) for name, value in data["facts"]),
        )


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What was read for one configuration, and the ids that follow from it.

    ``config_id`` is of the sections that it was read for, ``root`` where the
    study was then, ``plugins`` the hash of each plug-in's source, ``files`` of
    each file that their settings name.
    """

    config_id: str
    root: str
    space: SearchSpace
    scorer_id: str
    profiler_ids: Mapping[str, str]  # resource -> id of what measures it
    data: DataNotes | None
    plugins: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)  # by setting and path

    @classmethod
    def of(cls, config: StudyConfig, root: str) -> "Sources":
        """Everything as it is now.

        Raises:
            NasError: for data that the scorer looks at or a trained model that are not there, or a wrong space.
        """
        data = _notes(config)
        family = family_of(config, data.sample if data else None)
        family.check()
        return cls(
            config_id=_config_id(config),
            root=place_of(root),
            space=space_of(config, family),
            scorer_id=scorer_of(config, family, None).scorer_id,
            profiler_ids=_profiler_ids(config),
            data=data,
            plugins=_code_of(config),
            files=_files_of(config),
        )

    @classmethod
    def stored(cls, store: Store) -> "Sources | None":
        """What the store keeps; None where that is nothing, or of another version."""
        try:
            data = store.read_json(SOURCES)
            space = SearchSpace.from_dict(data["space"])
            alike = {tuple(map(int, key.split("-"))): name for key, name in data["same_function"].items()}
            known = {name: data[name] for name in ("config_id", "root", "scorer_id", "profiler_ids", "plugins")}
            notes = None if data["data"] is None else DataNotes.from_dict(data["data"])
            files = data.get("files", {})  # earlier versions had none
            return cls(**known, space=replace(space, same_function=alike), data=notes, files=files)
        except FileNotFoundError:
            return None
        except (NasError, LookupError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s cannot be used (%s): files are looked at again", store.uri(SOURCES), str(error)[:200])
            return None

    @classmethod
    def stored_for(cls, config: StudyConfig, store: Store) -> "Sources | None":
        """What the store keeps, if it was read for this configuration, whatever became of its plug-ins since."""
        found = cls.stored(store)
        return found if found is not None and found.config_id == _config_id(config) else None

    def is_of_present_code(self, config: StudyConfig) -> bool:
        """Whether the plug-ins of this process are those that it was read with."""
        return self.plugins == _code_of(config)

    def write(self, store: Store) -> None:
        space = self.space
        alike = {"-".join(map(str, choices)): name for choices, name in space.same_function.items()}
        known = {name: getattr(self, name) for name in ("config_id", "root", "scorer_id", "profiler_ids", "plugins")}
        notes = None if self.data is None else asdict(self.data)
        data = {**known, "files": self.files, "space": space.as_dict(), "same_function": alike, "data": notes}
        store.write_if_changed(SOURCES, (json.dumps(data, indent=1) + "\n").encode())

    def changes(self, before: "Sources", store: Store) -> list[str]:
        """What it means that they are others than before: evaluations are made anew, those of before are kept."""
        if (self.space.space_id, self.scorer_id) == (before.space.space_id, before.scorer_id):
            return []
        kept = len(store.evaluations(before.space.space_id, before.scorer_id))
        if not kept:
            return []
        known = len(store.evaluations(self.space.space_id, self.scorer_id))
        again = f"{known} evaluations of it are stored" if known else "its networks are evaluated anew"
        return [f"{self._difference(before)}: {again}; the {kept} evaluations made before are kept"]

    def _difference(self, before: "Sources") -> str:
        what, ids = "the scorer is another one now", f"({before.scorer_id} -> {self.scorer_id})"
        if is_other_space := self.space.space_id != before.space.space_id:
            what = f"space {self.space.name} is another one now"
            ids = f"({before.space.space_id} -> {self.space.space_id})"
        edited = [name for name, code in self.plugins.items() if before.plugins.get(name, code) != code]
        if edited:
            return f"plug-in {edited[0]} was edited, {what} {ids}"
        if others := _edited(before.files, self.files):
            return f"{others[0]} was edited, {what} {ids}"
        mine, theirs = (each.data.identity if each.data else {} for each in (self, before))
        return f"the data are others now {ids}" if mine != theirs and not is_other_space else f"{what} {ids}"


def notices(known: Sources, config: StudyConfig, store: Store) -> list[str]:
    """What is no longer as the study knew it, a sentence each; what is not at hand is not asked for."""
    found = [moved] if (moved := _moved(known, store)) else []
    advice = "the study is read as it was run; `mathnas run` takes what is there now"
    if edited := config.space.what_was_edited(dict(known.space.code)):
        found.append(f"space: {edited} since this study was run: {advice}")
    for name, code in known.plugins.items():
        with contextlib.suppress(NasError):
            if find(name).code != code:
                found.append(f"plugins: {name} was edited since this study was run: {advice}")
    edited_files = _edited(known.files, _files_of(config))
    found += [f"{name} was edited since this study was run: {advice}" for name in edited_files]
    if known.data is not None and known.data.fingerprint:
        with contextlib.suppress(NasError, OSError):
            if workload_of(config).fingerprint() != known.data.fingerprint:
                found.append(f"data: other files in {config.data.path} than when this study was run: {advice}")
    return found


def _moved(known: Sources, store: Store) -> str:
    here = place_of(store.root)
    if known.root == here:
        return ""
    if store.is_local and Path(known.root, SOURCES).is_file():
        return f"this study is a copy of {known.root}, which it leaves alone"
    return f"this study was moved: it was run in {known.root} and goes on in {here}"


def _config_id(config: StudyConfig) -> str:
    return content_id(config.model_dump(mode="json", include={**SECTIONS, "cluster": {"profile_resources"}}))


def _code_of(config: StudyConfig) -> dict[str, str]:
    """Plug-in -> hash of its source, as this process has imported it."""
    return {name: imported[name].code for name in config.plugins}


def _files_of(config: StudyConfig) -> dict[str, str]:
    """Setting and path -> hash, of the files that settings of plug-ins name; what is not there is not among them."""
    profilers = {each.name: each for each in (profiler_of(name, config.profile) for name in config.profile.resources)}
    sections: list[tuple[str, Registry[Any], Section, Collection[str]]] = [
        ("space", FAMILIES, config.space, ()),
        ("data", WORKLOADS, config.data, WORKLOADS[config.data.kind].places),
        ("scorer", SCORERS, config.scorer, SCORERS[config.scorer.kind].placement),
        ("searcher", SEARCHERS, config.searcher, ()),
        *((f"profile.profilers.{name}", PROFILERS, each.settings, ()) for name, each in profilers.items()),
    ]
    return {
        f"{where}.{setting} {named_paths(given)[setting]}": content
        for where, registry, given, apart in sections
        for setting, content in registry.files(getattr(given, "kind", where.rpartition(".")[2]), given, apart).items()
    }


def _edited(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the files that hold something else than before."""
    return [name for name, content in now.items() if before.get(name, content) != content]


def _notes(config: StudyConfig) -> DataNotes | None:
    """Of data that only a training looks at, notes are taken where they are there."""
    scorer_looks = SCORERS[config.scorer.kind].needs_data
    try:
        return DataNotes.of(workload_of(config), counted=scorer_looks)
    except NasError:
        if scorer_looks:
            raise
        return None


def _profiler_ids(config: StudyConfig) -> dict[str, str]:
    """Resource -> id of what measures it; FLOPs are always counted, since designs need them (0 of plain choices)."""
    resources = config.profile.resources
    if not FAMILIES[config.space.kind].are_networks:
        resources = [name for name in resources if not profiler_of(name, config.profile).needs_networks]
    return {resource: _profiler_id(config, resource) for resource in dict.fromkeys(("flops", *resources))}


def _profiler_id(config: StudyConfig, resource: str) -> str:
    """The profiler's own id, and for what is measured the node that `cluster.profile_resources` asks for."""
    known, node = profiler_id(config.profile, resource), config.cluster.profile_resources
    here = is_measured(resource) and profiler_of(resource, config.profile).measures_here  # on a node of the cluster
    return content_id({"profiler": known, "node": node}) if node and here else known
