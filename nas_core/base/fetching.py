"""Models that `nas_core` cannot reach by itself, by the scheme of their URI. No torch here.

Whoever can reach them says so: ``FETCHERS["models"] = function``, from a URI to
a module, or an exported program, that takes inputs as floats (images in [0, 1]).
"""

from collections.abc import Callable
from typing import Any

FETCHERS: dict[str, Callable[[str], Any]] = {}
