"""The science of mathnas: scored blocks, predicted networks, proven selections.

Nothing below this package imports an orchestrator (prefect), a cluster
(ray) or a tracker (mlflow); see the import contracts in ``pyproject.toml``.
"""

__version__ = "0.1.0"
