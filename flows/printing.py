"""Printing on any terminal: a finished run is not lost to a character, or a reader, that is not there."""

import codecs
import contextlib
import os
import sys
import unicodedata
from typing import TextIO

PLAIN = {
    "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "→": "->", "·": "*", "–": "-", "—": "-", "…": "...", "−": "-",
    "τ": "tau", "ρ": "rho", "ß": "ss", "’": "'", "‘": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


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


def drop_output(*streams: TextIO) -> None:
    """Nobody reads: what is yet to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # it is no file
            os.dup2(nowhere, stream.fileno())
