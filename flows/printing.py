"""Printing on any terminal: a finished run is not lost to a character, or a reader, that is not there."""

import codecs
import contextlib
import json
import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from typing import Annotated, TextIO

import typer

PLAIN = {
    "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "→": "->", "·": "*", "–": "-", "—": "-", "…": "...", "−": "-",
    "τ": "tau", "ρ": "rho", "ß": "ss", "’": "'", "‘": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


_kept: list[TextIO] = []  # standard output, while it is kept for JSON


@contextlib.contextmanager
def kept_for_json() -> Iterator[None]:
    """Meanwhile standard output is ``print_json``'s alone: what others print, such as a model's code, is an aside."""
    _kept.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()


def _keep(context: typer.Context, is_given: bool) -> bool:
    if is_given:
        context.find_root().with_resource(kept_for_json())  # as long as the command runs
    return is_given


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", callback=_keep)]


def print_json(data: object) -> None:
    """Print it as JSON on standard output."""
    print(json.dumps(data, indent=2), file=(_kept or [sys.stdout])[-1])


def print_what_can_be_printed() -> None:
    """Standard output and error print what their encoding lacks in its letters: no print fails for a character."""
    codecs.register_error("mathnas-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's own has not
            stream.reconfigure(errors="mathnas-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(map(_in_ascii, missing)), error.end


def _in_ascii(character: str) -> str:
    if character in PLAIN:
        return PLAIN[character]
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"


def is_of_a_gone_reader(error: BaseException) -> bool:
    """Whether the error, or one that it was made of, is that nobody reads standard output any more."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, BrokenPipeError):
        found = found.__cause__ or found.__context__
    return found is not None and _has_no_reader(sys.stdout)


def _has_no_reader(stream: TextIO) -> bool:
    """False where it cannot be known: an error of another pipe has to be told."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it is no file; Windows has no poll
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    return False


def drop_output(*streams: TextIO) -> None:
    """Nobody reads: what is yet to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # it is no file
            os.dup2(nowhere, stream.fileno())
