"""How many requests of a day are explained.

Belongs here: the budget that follows from the configuration and the explainers. Does not belong here: which requests
are drawn within it (see `lake.sampling`).
"""

from xai_assets.explain.selection import METHODS, choose_method
from xai_assets.flow.monitor import Monitor
from xai_assets.records import MODEL_ROLES

SLOW_BUDGET_ROWS = 2_000
"""Requests explained per day where an explainer asks the model hundreds of times for each."""


def explanation_budget(monitor: Monitor) -> int | None:
    """Most requests explained per day, or None for all of them.

    `explanation.budget_rows_per_day` where it is set; else all where both models' explainers are fast (trees,
    linear), and 2,000 where one is not. No explainer is built. Raises ModelError where a model cannot be loaded.
    """
    configured = monitor.config.explanation.budget_rows_per_day
    if configured is not None:
        return configured
    method = monitor.config.explanation.method
    is_fast = all(METHODS[choose_method(monitor.model(role), method)].is_fast for role in MODEL_ROLES)
    return None if is_fast else SLOW_BUDGET_ROWS
