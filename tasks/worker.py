"""What a worker is told of a study, and how it finds it: the configuration, the store, the plug-ins' code."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas_core.base.errors import SpaceError
from nas_core.base.plugins import Ticket, import_carried, imported
from nas_core.records.store import Store, shared_store
from nas_core.study.config import StudyConfig
from nas_core.study.study import Study

UNPACKED = Path(tempfile.gettempdir()) / "mathnas-plugins"  # of every worker of a node


@dataclass(frozen=True, kw_only=True)
class StudyJob:
    """A study as it travels to workers: small, and with nothing but texts in it."""

    config_json: str
    root: str
    space_id: str
    plugins: tuple[Ticket, ...] = ()

    def study(self) -> Study:
        """The study, in a worker; its plug-ins are imported first, from the store where this node has no other source.

        Raises:
            PluginError: if a plug-in does not import here.
            SpaceError: if the family has read another space here than the driver did: its networks have other numbers.
        """
        store = shared_store(self.root)
        import_tickets(self.plugins, store)
        study = Study(StudyConfig.model_validate_json(self.config_json), store)
        found = study.family.space.space_id
        if found != self.space_id:
            advice = "A file that the family reads was changed during the run; run the study again."
            raise SpaceError(f"space {study.space.name}", found, f"{self.space_id}, as the run began", advice)
        return study


def study_job(study: Study) -> StudyJob:
    """The study as a job; its plug-ins' source is put into the store."""
    plugins = carried(study.config.plugins, study.store)
    return StudyJob(
        config_json=study.config.model_dump_json(),
        root=study.store.root,
        space_id=study.space.space_id,
        plugins=plugins,
    )


def carried(names: Sequence[str], store: Store) -> tuple[Ticket, ...]:
    """Tickets of the plug-ins, whose source is in the store from now on."""
    tickets = []
    for name in names:
        ticket = Ticket.of(imported[name])
        if not store.exists(ticket.path):
            store.write_bytes(ticket.path, imported[name].packed())
        tickets.append(ticket)
    return tuple(tickets)


def import_tickets(tickets: Sequence[Ticket], store: Store) -> None:
    """Import plug-ins in a worker."""
    for ticket in tickets:
        import_carried(ticket, lambda path=ticket.path: store.read_bytes(path), UNPACKED)  # type: ignore[misc]
