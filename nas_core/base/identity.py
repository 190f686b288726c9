"""Identity is content: ids and seeds are computed from data, never from a clock or a counter."""

import hashlib
import json
from collections.abc import Mapping

from nas_core.base.errors import ConfigError


def content_id(data: Mapping[str, object]) -> str:
    """First 12 hex digits of the SHA-256 of ``data`` as canonical JSON.

    Raises:
        ConfigError: for a number that is not finite.
    """
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ConfigError("settings", "a number that is infinite or no number", "finite numbers") from None
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def evaluation_seed(study_seed: int, genotype: object) -> int:
    """Seed of one evaluation: a function of the study's seed and the genotype alone.

    Neither the order of evaluations nor a retry changes a result.
    """
    digest = hashlib.sha256(f"{study_seed}/{genotype}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
