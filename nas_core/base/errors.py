"""Errors a user can cause: each says where, what was found, what is allowed, what to do.

Every field goes to ``Exception.__init__``, so an error survives the pickling
that carries it from a worker process to the driver. None of them shows a
password, and each is one line of ``LONGEST`` characters at most, whatever was found.
"""

import re
from collections.abc import Sequence

LONGEST = 2_000  # characters of a message
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET = re.compile(r"(?i)\b((?:\w*password|\w*secret\w*|\w*token|access_key|secret_key)=)[^&;,\s'\")]+")


def without_passwords(text: str) -> str:
    """The text with every address in it as messages and files may show it: no user, no password."""
    return _SECRET.sub(r"\1***", _USER.sub("", text))


def fitted(parts: Sequence[str], room: int) -> list[str]:
    """The texts, the longest of them with their middle left out until all together have room."""
    kept = list(parts)
    by_length = sorted(range(len(parts)), key=lambda index: len(parts[index]))
    for rest, index in zip(range(len(parts), 0, -1), by_length, strict=True):
        kept[index] = shortened(parts[index], room // rest)
        room -= len(kept[index])
    return kept


def shortened(text: str, most: int) -> str:
    """The text with its middle left out where it is longer than ``most`` characters, which it then says."""
    if len(text) <= most:
        return text
    gap = f" ... ({len(text):,} characters) ... "
    head = max(0, (most - len(gap)) * 2 // 3)
    tail = max(0, most - len(gap) - head)
    return f"{text[:head]}{gap}{text[len(text) - tail :]}"


class NasError(Exception):
    """A mistake that stops before compute is spent, or a result that cannot be had.

    Args:
        where: the field, file, position or address that is wrong.
        found: what stands there.
        expected: what is allowed there.
        advice: what to do about it, where that is not obvious.
    """

    def __init__(self, where: str, found: object, expected: str, advice: str = "") -> None:
        where, expected, advice = map(without_passwords, (where, expected, advice))
        found = without_passwords(found) if isinstance(found, str) else found
        super().__init__(where, found, expected, advice)
        self.where, self.found, self.expected, self.advice = where, found, expected, advice

    def __str__(self) -> str:
        parts = [" ".join(str(part).splitlines()) for part in (self.where, self.found, self.expected, self.advice)]
        where, found, expected, advice = fitted(parts, LONGEST - len(": found , expected . "))
        message = f"{where}: found {found}, expected {expected}"
        return f"{message}. {advice}" if advice else message


class ConfigError(NasError):
    """A field of a configuration, a command's option or a limit is wrong."""


class UnknownNameError(NasError):
    """A name is in no registry; ``expected`` lists the registered ones."""


class PluginError(NasError):
    """What a user brings cannot be imported, is named like something else, or is not what its protocol asks for."""


class SpaceError(NasError):
    """A search space, a genotype or a rule contradicts itself or the space."""


class DataError(NasError):
    """A data set is missing, empty or not of the shape the space expects."""


class StoreError(NasError):
    """A study's store cannot be read or written, or is of another version."""


class StudyHeldError(NasError):
    """Another driver is at work on the study."""


class IncompleteTableError(NasError):
    """A position or block has no usable evaluation or cost."""


class InfeasibleError(NasError):
    """No network satisfies the limits; the fields say what is attainable."""


class ClusterError(NasError):
    """Ray, Prefect or MLflow does not answer, or cannot satisfy a request."""
