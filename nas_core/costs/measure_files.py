"""Time networks on this machine, in turns. Needs Python 3.9, numpy, and onnxruntime (torch for programs).

    python3 measure.pyz                     # writes measured.csv beside it
    python3 measure.pyz --out - > some.csv  # or to standard output
    python3 measure.pyz --provider CUDAExecutionProvider

This is the ``__main__.py`` of a file that `mathnas measure STUDY --to measure.pyz`
wrote: the networks are in it, and ``networks.json`` says how they are to be run.
"""

import argparse
import csv
import io
import json
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Union

import numpy as np

AT_ONCE = 16  # networks in memory that take turns, the first always among them
SESSIONS = 5  # among which a network's repeats are shared out; the fastest counts
MOST_SESSIONS = 15  # where others use the machine, too
SPAN_S = 2.0  # that they take together, at least: what else a machine does lasts longer than one of a small network
CALM, CALM_SESSIONS = 1.05, 3  # times what the first network takes at least, and how many such sessions are wanted
CPU = "CPUExecutionProvider"
MANIFEST = "networks.json"
COLUMNS = ("asked", "purpose", "genotype", "status", "ms", "spread_ms", "repeats", "batch_size", "num_threads",
           "device", "message")  # fmt: skip
Call = Callable[[], object]
# of each network the milliseconds of every repeat, or why there are none
Timings = list[Union[np.ndarray, Exception]]  # noqa: UP007 (as Pythons before 3.10 have it)


def main(arguments: "Sequence[str] | None" = None) -> None:
    """Time the networks in this file and write a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="measured.csv", help="file to write; -: standard output")
    parser.add_argument("--provider", default=CPU, help="of ONNX Runtime")
    parser.add_argument("--device", default="", help="what this machine is called; default: its processor's name")
    given = parser.parse_args(arguments)
    with zipfile.ZipFile(sys.argv[0]) as archive:
        asked = json.loads(archive.read(MANIFEST))
        if given.provider != CPU and asked["runtime"] != "onnxruntime":
            parser.error(f"--provider is of ONNX Runtime, these networks are programs of torch ({asked['runtime']})")
        device = f"{given.device or processor()}, {asked['runtime']}"
        if given.provider != CPU:
            device += f", {given.provider}"
        rows = list(measured(archive, {**asked, "provider": given.provider}))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    fixed = {name: asked[name] for name in ("asked", "purpose", "batch_size", "num_threads")}
    writer.writerows({**fixed, "device": device, **row} for row in rows)
    if given.out == "-":
        sys.stdout.write(text.getvalue())
    else:
        Path(given.out).write_text(text.getvalue(), encoding="utf-8")
        print(f"Wrote {given.out}: mathnas measure STUDY --from {given.out}", file=sys.stderr)


def measured(archive: zipfile.ZipFile, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of every network: what it takes undisturbed, and half the distance from the 10th to the 90th percentile."""
    first, *others = asked["networks"]
    inputs, count = example(asked), max(1, -(-len(others) // AT_ONCE))
    groups = [[first, *others[AT_ONCE * index : AT_ONCE * (index + 1)]] for index in range(count)]

    def timed(index: int, repeats: int) -> Timings:
        if count > 1:
            print(f"group {index + 1} of {count}", file=sys.stderr)
        calls = [_call(archive, each, inputs, asked) for each in groups[index]]
        return in_turns(calls, {**asked, "repeats": repeats})

    found = in_sessions([partial(timed, index) for index in range(count)], asked["repeats"])
    owns = [timings[0] for timings in found]
    reference = next((own for own in owns if isinstance(own, np.ndarray)), owns[0])
    yield _row(first, reference)
    # all of one length; Pythons before 3.10 have no `strict`
    for networks, timings, own in zip(groups, found, owns):  # noqa: B905
        for network, timing in zip(networks[1:], timings[1:]):  # noqa: B905
            if isinstance(timing, np.ndarray) and isinstance(own, np.ndarray) and isinstance(reference, np.ndarray):
                timing = timing * undisturbed(reference) / undisturbed(own)  # a machine that drifts slows all alike
            yield _row(network, timing)


def _row(network: dict[str, str], timing: "np.ndarray | Exception") -> dict[str, Any]:
    if isinstance(timing, Exception):
        return {"genotype": network["genotype"], "status": "failed", "repeats": 0,
                "message": " ".join(f"{type(timing).__name__}: {timing}".split())[:300]}  # fmt: skip
    low, high = np.percentile(timing, [10, 90])
    return {
        "genotype": network["genotype"],
        "status": "ok",
        "ms": repr(undisturbed(timing)),
        "spread_ms": repr(float(high - low) / 2),
        "repeats": len(timing),
        "message": "",
    }


def undisturbed(timing: np.ndarray) -> float:
    """Mean of the faster half of the runs: what else happens on a machine only ever makes some slower."""
    return float(np.sort(timing)[: (len(timing) + 1) // 2].mean())


def example(asked: dict[str, Any]) -> np.ndarray:
    """Random numbers B x ...; whole ones are 0 or 1, which every vocabulary has."""
    rng, shape = np.random.default_rng(0), (asked["batch_size"], *asked["shape"])
    if asked["dtype"].startswith("float"):
        return rng.standard_normal(shape).astype(asked["dtype"])
    return rng.integers(0, 2, shape).astype(asked["dtype"])


def _call(
    archive: zipfile.ZipFile, network: dict[str, str], inputs: np.ndarray, asked: dict[str, Any]
) -> "Call | Exception":
    try:
        return runner(archive.read(network["file"]), inputs, asked["runtime"], asked["num_threads"], asked["provider"])
    except Exception as error:  # this network has no latency, the others have
        return error


def runner(data: bytes, inputs: np.ndarray, runtime: str, num_threads: int, provider: str) -> Call:
    """What runs the network once."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=[provider])
        if provider not in (there := session.get_providers()):  # it takes another one, with a warning at most
            raise RuntimeError(f"ONNX Runtime has no {provider} here, only {', '.join(there)}")
        feed = {session.get_inputs()[0].name: inputs}
        return lambda: session.run(None, feed)
    import torch

    torch.set_num_threads(num_threads)
    network, tensor = torch.export.load(io.BytesIO(data)).module(), torch.from_numpy(inputs)

    def run() -> object:
        with torch.inference_mode():
            return network(tensor)

    return run


def in_sessions(groups: "Sequence[Callable[[int], Timings]]", repeats: int) -> "list[Timings]":
    """Time all groups in several sessions; each session opens the files anew and visits the groups in turn.

    The repeats are shared out among the sessions, until some of them were calm for each group. Of each file the
    fastest session counts. The first file is the same in all groups.
    """
    count = min(SESSIONS, repeats)
    sessions: list[list[Timings]] = [[] for _ in groups]
    began, apart_s = time.perf_counter(), SPAN_S / MOST_SESSIONS
    while wanted := [index for index, mine in enumerate(sessions) if len(mine) < count] or disturbed(sessions, began):
        longest = max(map(len, sessions))
        time.sleep(max(0.0, began + longest * apart_s - time.perf_counter()))  # those of small files are over at once
        for index in wanted:
            sessions[index].append(groups[index](-(-repeats // count)))
    return [[fastest(column) for column in zip(*mine)] for mine in sessions]  # noqa: B905


def disturbed(groups: "Sequence[Sequence[Timings]]", began: float) -> list[int]:
    """Groups that need another session: too few of theirs were calm, told by the first network, which all have.

    Or all, where that was soon done since ``began``. None where the first network failed, or after the most of them.
    """
    firsts = [[session[0] for session in sessions] for sessions in groups]
    least_G = [[undisturbed(each) for each in mine if isinstance(each, np.ndarray)] for mine in firsts]
    if not all(least_G):
        return []
    calm_ms, is_soon = CALM * min(map(min, least_G)), time.perf_counter() - began < SPAN_S
    return [
        index
        for index, mine in enumerate(least_G)
        if len(mine) < MOST_SESSIONS and (is_soon or sum(ms <= calm_ms for ms in mine) < CALM_SESSIONS)
    ]


def fastest(sessions: "Sequence[np.ndarray | Exception]") -> "np.ndarray | Exception":
    """The session that took least: where its memory happens to lie makes one slower. The failure where one failed."""
    failed = next((each for each in sessions if isinstance(each, Exception)), None)
    return failed or min((each for each in sessions if isinstance(each, np.ndarray)), key=undisturbed)


def in_turns(calls: "list[Call | Exception]", asked: dict[str, Any]) -> "Timings":
    """Milliseconds of every repeat, in rounds of one timed run of each network, after rounds that warm up.

    Another run before each timed one brings back into the caches what the networks before it displaced: where a
    network is used it runs again and again, too.
    """
    on_cpu = asked.get("provider", CPU) == CPU
    clock = time.thread_time_ns if asked["num_threads"] == 1 and on_cpu else time.perf_counter_ns
    timings: list[np.ndarray | Exception] = [
        call if isinstance(call, Exception) else np.zeros(asked["repeats"]) for call in calls
    ]
    for repeat in range(-asked["warmup"], asked["repeats"]):
        for index, call in enumerate(calls):
            timing = timings[index]
            if isinstance(call, Exception) or isinstance(timing, Exception):
                continue
            try:
                call()
                began = clock()
                call()
                ms = (clock() - began) / 1e6
            except Exception as error:
                calls[index] = timings[index] = error
                continue
            if repeat >= 0:
                timing[repeat] = ms
    return timings


def processor() -> str:
    """The processor's model name as the kernel gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
