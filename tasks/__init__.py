"""Thin Prefect tasks, one per unit of the pipeline a person would want to see, retry or rerun.

No science here: a task loads, calls one function of ``nas_core``, stores, and
returns a path or a small object. Only the modules ``ray_*`` import
ray, only ``tracking`` mlflow.
"""

from tasks import environment as environment  # first: libraries read their environment when they are imported
