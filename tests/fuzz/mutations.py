"""Mutations of nested data, text and bytes: what hands, editors, disks and malice do to a file."""

import random
from collections.abc import Callable
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"),
    float("-inf"), "", " ", "x", "0", "-1", "1e400", "nan", "\0", "../../etc/passwd", "/etc/passwd", "~root", "$HOME",
    "a" * 5000, "ü\u202e\ud83d\ude00", "{{ x }}", "${x}", "%s", "!!python/object:os.system", "2-0-1", "flops<=60%",
    [], {}, [[]], [None], [1, 2, 3], {"": ""}, {"a": {"b": {"c": 1}}}, [0] * 200, "<script>alert(1)</script>", b"x",
]  # fmt: skip
ODD_KEYS = ["", "name", "kind", "x", "0", "__class__", "../..", "a" * 300, "seed", "path", "file"]


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested data."""
    found: list[tuple[Any, Any]] = []
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        found.append((data, key))
        found += places(value)
    return found


def mutate(data: Any, rng: random.Random) -> None:
    """Change nested data in place, one to three times."""
    for _ in range(rng.randint(1, 3)):
        everywhere = places(data)
        if not everywhere:
            return
        container, key = rng.choice(everywhere)
        match rng.randrange(8):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1 if isinstance(container, dict):
                container[rng.choice(ODD_KEYS)] = container[key]
            case 2 if isinstance(container, list):
                container.append(container[key])
            case 3:
                other, place = rng.choice(everywhere)
                if place in other if isinstance(other, dict) else place < len(other):
                    container[key] = _copy(other[place])
            case 4 if isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
                container[key] = _number(container[key], rng)
            case 5 if isinstance(container[key], str):
                container[key] = _text(container[key], rng)
            case _:
                container[key] = _copy(rng.choice(ODD_VALUES))


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def _number(value: float, rng: random.Random) -> float:
    changes: list[Callable[[float], float]] = [
        lambda v: -v, lambda v: v + 1, lambda v: v - 1, lambda v: v * 10, lambda v: v / 7, lambda v: v + 0.5,
    ]  # fmt: skip
    try:
        return rng.choice(changes)(value)
    except OverflowError:  # an integer of 400 digits and a fraction
        return -value


def _text(text: str, rng: random.Random) -> str:
    at = rng.randint(0, len(text))
    return rng.choice([text[:at], text[at:] + text[:at], text[:at] + rng.choice("-./:{}[]<>=%\0\n é9") + text[at:]])


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, cut short, doubled, overwritten."""
    changed = bytearray(data)
    match rng.randrange(5):
        case 0:
            return bytes(changed[: rng.randint(0, len(changed))])
        case 1 if changed:
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 2:
            at = rng.randint(0, len(changed))
            changed[at:at] = rng.randbytes(rng.randint(1, 30))
        case 3:
            at = rng.randint(0, len(changed))
            changed[at : at + rng.randint(1, 50)] = b""
        case _:
            return rng.choice([b"", b"\0" * 10, b"{}", b"[]", b"null", b"PAR1", b"- a\n", rng.randbytes(100)])
    return bytes(changed)
