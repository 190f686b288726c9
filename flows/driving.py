"""The study that this process drives: checked once, opened once, shared by the flows that run inside one another."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

from pydantic import Field

from flows.preflight import preflight
from nas_core.records.lease import hold
from nas_core.records.store import Store, place_of
from nas_core.study.config import StudyConfig
from nas_core.study.outputs import damaged_from
from nas_core.study.sources import Sources
from nas_core.study.stages import Stage
from nas_core.study.study import Study
from tasks.saying import doing

Wait = Annotated[float, Field(ge=0)]  # seconds
_driven: dict[str, Study] = {}  # place -> the study


@contextmanager
def drive(
    config: StudyConfig,
    root: str,
    *,
    until: Stage | None = None,
    rerun_from: Stage | None = None,
    wait_s: float = 0.0,
) -> Iterator[Study]:
    """The study under ``root`` with this configuration, for its only driver; entered again, the same one.

    The outermost checks what the stages up to ``until`` would meet (None: nothing), takes the lease, for which it
    waits ``wait_s`` seconds, and writes the configuration. Damaged outputs of the stages to be repeated, those from
    ``rerun_from`` on, are out of the way then.

    Raises:
        NasError: as ``preflight`` does; StudyHeldError if another process drives it.
    """
    place = place_of(root)
    outer = _driven.get(place)
    if outer is not None and outer.config == config:
        yield outer
        return
    store = outer.store if outer else Store(root)
    if rerun_from is not None and (damaged := damaged_from(store, rerun_from)):
        with _patiently(store, wait_s):  # they would stop the checks; another driver may be writing them just now
            for path in damaged:
                store.set_aside(path, "is damaged")
    with doing("checking the study and its data"):  # every image is read once
        # what is there now counts where work is to be done; what is only reported is taken as it was
        sources = Sources.stored_for(config, store) if until is None else Sources.of(config, store.root)
        study = Study(config, store, sources)
        if until is not None:
            preflight(study, until)
    with _patiently(study.store, wait_s):
        study.write_config()
        study.refresh()  # the preflight's look may be old: another driver may have ended just now
        _driven[place] = study
        try:
            yield study
        finally:
            _driven.pop(place)
            if outer is not None:
                _driven[place] = outer


@contextmanager
def _patiently(store: Store, wait_s: float) -> Iterator[None]:
    """The lease, once the driver that has it ends; that it is waited for is said."""
    with ExitStack() as lease:
        with doing("waiting for the other driver of the study"):
            lease.enter_context(hold(store, wait_s))
        yield
