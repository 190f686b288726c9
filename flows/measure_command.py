"""`mathnas measure`: a study's networks timed on another machine, by a file that is carried there, or over ssh."""

import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.base.errors import ClusterError, ConfigError
from nas_core.records.lease import hold
from nas_core.space.genotypes import Genotype
from nas_core.study.study import Study
from tasks.profiling import additivity_sample, to_measure_whole

if TYPE_CHECKING:
    from nas_core.study.elsewhere import Elsewhere

LONGEST_S = 24 * 3600  # that another machine may take
HOST = re.compile(r"[^\s/:-][^\s/:]*")  # scp takes other words for options, or for files of this machine


def elsewhere(study: Study) -> "Elsewhere":
    """What another machine is to measure of the study; raises ConfigError for one that is measured here."""
    from nas_core.study.elsewhere import Elsewhere

    chosen = [Genotype.parse(text) for text in to_measure_whole(study)]
    return Elsewhere(study, additivity_sample(study), chosen)


def write(study: Study, path: Path) -> list[str]:
    """Write the file to carry; returns how to go on."""
    asked = elsewhere(study)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # said before networks are packed, which takes its time
            raise ConfigError(f"--to {path}", "a folder", "a file that can be written")
        data = _packed(asked)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--to {path}", error.strerror or str(error), "a file that can be written") from None
    root = study.store.root
    return [
        f"Wrote {path} ({len(data) / 2**20:.1f} MiB).",
        f"There: python3 {path.name}   # needs numpy and what runs the networks; writes measured.csv",
        f"Here:  mathnas measure {root} --from measured.csv",
    ]


def bring(study: Study, path: Path) -> list[str]:
    """Take what the file wrote."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "what is no text"
        raise ConfigError(f"--from {path}", found, "the file that was written there") from None
    return _taken(elsewhere(study), text, f"--from {path}")


def over_ssh(study: Study, host: str, python: str) -> list[str]:
    """Carry the file with the user's own scp, run it with their ssh, take what it says, and remove it there.

    Raises:
        ConfigError: for what is no name of a machine.
        ClusterError: if the other machine cannot be reached, or the file fails there.
    """
    if not HOST.fullmatch(host):
        raise ConfigError("--host", repr(host), "NAME or USER@NAME, as ssh knows it")
    asked = elsewhere(study)
    name = f"mathnas-measure-{asked.asked}.pyz"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(_packed(asked))
        _run(host, ["scp", "-q", str(path), f"{host}:{name}"])
    try:
        text = _run(host, ["ssh", host, f"{python} {name} --out -"])
    finally:
        with suppress(ClusterError):  # what was measured is worth more than a file that stays there
            _run(host, ["ssh", host, f"rm -f {name}"])
    return _taken(asked, text, f"--host {host}")


def _run(host: str, command: list[str]) -> str:
    """Standard output of a command; what it says of its progress goes to ours."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LONGEST_S).stdout
    except FileNotFoundError:
        raise ClusterError(f"--host {host}", f"no {command[0]} on this machine", "OpenSSH's client") from None
    except subprocess.CalledProcessError as error:
        found = f"{command[0]} ended with {error.returncode}"
        raise ClusterError(f"--host {host}", found, "a machine that ssh reaches, and Python there with numpy") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"--host {host}", f"nothing for {LONGEST_S} s", "measurements") from None


def _packed(asked: "Elsewhere") -> bytes:
    def tell(done: int, total: int) -> None:
        is_last, is_terminal = done + 1 == total, sys.stderr.isatty()
        if is_last or is_terminal:
            line = f"mathnas: {done + 1} of {total} networks written"
            print(f"{chr(13) * is_terminal}{line}", end="\n" * is_last, file=sys.stderr, flush=True)

    return asked.packed(tell)


def _taken(asked: "Elsewhere", text: str, source: str) -> list[str]:
    with hold(asked.study.store, 0.0):
        return [asked.take(asked.read(text, source))]
