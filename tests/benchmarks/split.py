"""In how many of timm's families of models positions are found, and that exchanging them changes no bit.

``python -m tests.benchmarks.split --json`` splits one small member of every
family (module file of timm) that builds here, with random weights, on 2
images; ``--models a,b,c`` any other models of timm. A model passes with at
least 4 positions that hold at least 80 % of its multiply-adds, none of them
more than 50 %, where opaque copies in all positions leave the output equal bit
for bit, and all weights and buffers are afterwards what they were.

Half of the families (by the hash of their names) were not looked at while the
rules were made: ``held_back`` reports them apart, ``--half`` runs one half.
The members and sizes of input stand in ``tables/timm_members.json``: the
member of fewest parameters, the smallest square image that it accepts;
``--choose`` writes the file anew for the installed timm.
"""

import argparse
import gc
import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas_core.families import timm_compat  # noqa: F401  # torchvision is mended before timm imports it
from nas_core.families.model.splitting import ENOUGH, FEWEST, LARGEST, self_swap, split
from tests.benchmarks.conditions import conditions

MEMBERS = Path(__file__).parent / "tables" / "timm_members.json"
SIDES = (32, 64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model and the square image it is asked with; ``sized``: it is told the size when it is built."""

    model: str
    side: int
    sized: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one model was split; ``reason`` says why it failed, or nothing."""

    model: str
    positions: int = 0
    covered: float = 0.0
    largest: float = 0.0
    left_out: int = 0
    seconds: float = 0.0
    reason: str = ""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument(
        "--models", type=known_models, default=[], help="names of timm's models, with commas, instead of the families"
    )
    parser.add_argument("--side", type=side, help="of the images, pixels, instead of the smallest")
    parser.add_argument("--half", choices=("all", "developed", "held_back"), default="all")
    parser.add_argument("--choose", action="store_true", help="find the members anew and write their file")
    return parser.parse_args()


def known_models(text: str) -> list[str]:
    """``a,b``; raises ArgumentTypeError for a name that timm does not know."""
    from timm.models import is_model

    names = text.split(",")
    if unknown := [name for name in names if not is_model(name)]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}, expected names of timm's models and commas")
    return names


def side(text: str) -> int:
    """``224``; raises ArgumentTypeError for what is no number of pixels."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of pixels above 0")
    return int(text)


def is_held_back(family: str) -> bool:
    return hashlib.sha256(family.encode()).digest()[0] % 2 == 1


def build(member: Member) -> nn.Module:
    """The model with weights that hide nothing: no scale is nought, no branch switched off."""
    import timm

    size = {"img_size": member.side} if member.sized else {}
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(member.model, num_classes=10, **size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def images_for(model: nn.Module, member: Member) -> torch.Tensor:
    channels = getattr(model, "default_cfg", {}).get("input_size", (3,))[0]
    return torch.randn(2, channels, member.side, member.side, generator=torch.Generator().manual_seed(0))


def state_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def judged(member: Member) -> Result:
    start = time.perf_counter()
    try:
        model = build(member)
        images, before = images_for(model, member), state_hash(model)
        found = split(model, images)
        noticed = self_swap(model, images, found)
    except Exception as error:
        return Result(
            model=member.model, reason=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - start
        )
    largest = max(place.share for place in found.places)
    complaints = [
        f"{len(found.places)} positions" if len(found.places) < FEWEST else "",
        f"{found.covered:.0%} of the multiply-adds in positions" if found.covered < ENOUGH else "",
        f"{largest:.0%} of them in one" if largest > LARGEST else "",
        f"copies are noticed in {', '.join(noticed)}" if noticed else "",
        "its state changed" if state_hash(model) != before else "",
    ]
    return Result(
        model=member.model,
        positions=len(found.places),
        covered=found.covered,
        largest=largest,
        left_out=len(found.left_out),
        seconds=time.perf_counter() - start,
        reason=", ".join(filter(None, complaints)),
    )


def choose() -> dict[str, Any]:
    """The smallest member of each family, or why there is none."""
    import timm

    return {family: _smallest(timm.list_models(module=family)) for family in timm.list_modules()}


def _smallest(names: list[str]) -> dict[str, Any]:
    reason = "no model"
    for _, name in sorted((_parameters(name), name) for name in names):
        member = accepted(name)
        if isinstance(member, Member):
            return asdict(member)
        reason = member
    return {"does_not_build": reason}


def _parameters(name: str) -> float:
    import timm

    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    except Exception as error:
        print(f"{name} does not build on the meta device: {error}", flush=True)
        return float("inf")


def accepted(name: str, sides: Sequence[int] = SIDES) -> Member | str:
    """The model with the smallest image it takes, or what it says to the largest."""
    reason = ""
    for side, sized in ((side, sized) for side in sides for sized in (True, False)):
        member = Member(model=name, side=side, sized=sized)
        try:
            model = build(member).eval()
            with torch.no_grad():
                model(images_for(model, member))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        return member
    return reason


def _members(arguments: argparse.Namespace) -> Iterator[tuple[str, Member | str]]:
    """Families with what is split of them, or why nothing is."""
    sides = (arguments.side,) if arguments.side else SIDES
    if arguments.models:
        for name in arguments.models:
            yield _family_of(name), accepted(name, sides)
        return
    for family, row in json.loads(MEMBERS.read_text()).items():
        if arguments.half == "all" or is_held_back(family) == (arguments.half == "held_back"):
            if "does_not_build" in row:
                yield family, row["does_not_build"]
            else:
                yield family, accepted(row["model"], sides) if arguments.side else Member(**row)


def _family_of(name: str) -> str:
    from timm.models import is_model_in_modules, list_modules

    architecture = name.split(".")[0]
    return next((family for family in list_modules() if is_model_in_modules(architecture, {family})), "unknown")


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    results: list[tuple[str, Result]] = []
    absent = {}
    for family, member in _members(arguments):
        if isinstance(member, str):
            absent[family] = member
            continue
        result = judged(member)
        gc.collect()
        results.append((family, result))
        if not arguments.json:
            print(
                f"{family:24} {result.model:36} {result.positions:3} positions, {result.covered:4.0%} covered, "
                f"largest {result.largest:3.0%}, {result.left_out:2} left out, {result.seconds:4.1f} s {result.reason}",
                flush=True,
            )
    held_back = [result for family, result in results if is_held_back(family)]
    return {
        "models": len(results),
        "families": len({family for family, _ in results}),
        "passed": sum(not result.reason for _, result in results),
        "held_back": {"models": len(held_back), "passed": sum(not result.reason for result in held_back)},
        "failed": {result.model: result.reason for _, result in results if result.reason},
        "do_not_build": absent,
        **conditions(timm=version("timm"), images=2, weights="random"),
        "seconds": round(sum(result.seconds for _, result in results)),
    }


def main() -> None:
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    if arguments.choose:
        MEMBERS.write_text(json.dumps(choose(), indent=1) + "\n")
        return
    print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
