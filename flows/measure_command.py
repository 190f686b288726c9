"""`mathnas measure`: a study's networks timed on another machine, by a file that is carried there, or over ssh."""

import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.base.errors import ClusterError, ConfigError
from nas_core.records.lease import hold
from nas_core.space.genotypes import Genotype
from nas_core.study.profiled import additivity_sample
from nas_core.study.study import Study
from tasks.profiling import to_measure_whole

if TYPE_CHECKING:
    from nas_core.study.elsewhere import Elsewhere

LONGEST_S = 24 * 3600  # that another machine may take
HOST = re.compile(r"[^\s/:-][^\s/:]*")  # ssh takes what begins with a hyphen for an option, and no port so
UNREACHED = 255  # what ssh ends with of its own; else with what the command there ended with


def elsewhere(study: Study) -> "Elsewhere":
    """What another machine is to measure of the study; raises ConfigError for one that is measured here."""
    from nas_core.study.elsewhere import Elsewhere

    chosen = [Genotype.parse(text) for text in to_measure_whole(study)]
    return Elsewhere(study, additivity_sample(study.snapshot), chosen)


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
    root = shlex.quote(study.store.root)
    return [
        f"Wrote {path} ({len(data) / 2**20:.1f} MiB).",
        f"There: python3 {shlex.quote(path.name)}   # needs numpy and what runs the networks; writes measured.csv",
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
    """Carry the file there, run it, take what it says, and remove it there, all by the user's own ssh.

    Raises:
        ConfigError: for what is no name of a machine.
        ClusterError: if the other machine cannot be reached, or the file fails there.
    """
    if not HOST.fullmatch(host):
        raise ConfigError("--host", repr(host), "NAME or USER@NAME, as ssh knows it")
    asked = elsewhere(study)
    name = f"mathnas-measure-{asked.asked}.pyz"
    _run(host, f"cat > {name}", _packed(asked))  # not by scp: it needs a server of its own there, which not all have
    try:
        text = _run(host, f"{python} {name} --out -")
    finally:
        with suppress(ClusterError):  # what was measured is worth more than a file that stays there
            _run(host, f"rm -f {name}")
    return _taken(asked, text, f"--host {host}")


def _run(host: str, command: str, given: bytes = b"") -> str:
    """Standard output of a command there that is given this to read; what it says of its progress goes to ours."""
    try:
        ended = subprocess.run(
            ["ssh", host, command], input=given, stdout=subprocess.PIPE, check=True, timeout=LONGEST_S
        )
    except FileNotFoundError:
        raise ClusterError(f"--host {host}", "no ssh on this machine", "OpenSSH's client") from None
    except subprocess.CalledProcessError as error:
        if error.returncode == UNREACHED:
            raise ClusterError(f"--host {host}", f"ssh ended with {UNREACHED}", "a machine that ssh reaches") from None
        found, expected = f"`{command}` ended with {error.returncode} there", "room for a file, and Python with numpy"
        raise ClusterError(f"--host {host}", found, expected, "--python names another Python there.") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"--host {host}", f"nothing for {LONGEST_S} s", "measurements") from None
    return ended.stdout.decode(errors="replace")


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
