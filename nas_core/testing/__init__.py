"""Contract tests: what every registered class has to hold, ours and a plug-in's alike.

``check(kind, name)`` holds one class against its protocol and says what fails;
``mathnas check FILE|MODULE`` does so for everything that a plug-in registers.
"""

from nas_core.testing.contracts import Failure, check, check_all, registries

__all__ = ["Failure", "check", "check_all", "registries"]
