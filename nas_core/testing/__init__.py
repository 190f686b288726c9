"""Contract tests: what every registered class has to hold, ours and a plug-in's alike.

``check(kind, name)`` holds one class against its protocol and says what fails;
``mathnas check FILE|MODULE`` does so for everything that a plug-in registers.
``check_functions(config)`` calls a study's own functions for its networks.
"""

from nas_core.testing.contracts import Failure, check, check_all, is_function, registries
from nas_core.testing.own_functions import check_functions

__all__ = ["Failure", "check", "check_all", "check_functions", "is_function", "registries"]
