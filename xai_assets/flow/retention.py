"""Deleting row-level partitions past their retention.

Belongs here: which tables have one, and which days are kept all the same. Histograms, scores, alerts and
recommendations have none: they are small and are the memory of the system.
"""

from datetime import date, timedelta

from xai_assets.flow.monitor import Monitor


def retention_days(monitor: Monitor) -> dict[str, int]:
    """Days kept per row-level table."""
    r = monitor.config.retention
    return {
        "replay_log": r.replay_log_days,
        "quarantine": r.quarantine_days,
        "label_quarantine": r.quarantine_days,
        "divergence_set": r.divergence_set_days,
        "production_attributions": r.attributions_days,
        "experimental_attributions": r.attributions_days,
        "explanation_shift_sample": r.attributions_days,
    }


def apply_retention(monitor: Monitor) -> dict[str, list[date]]:
    """Delete what is older than its retention, counted from the newest stored day; reference days are kept.

    Counting from the newest stored day, not from today, keeps a replay of old logs whole.
    Returns the deleted days per table; tables with nothing to delete are left out.
    """
    stored = monitor.lake.days("replay_log", monitor.name)
    if not stored:
        return {}
    kept = set(monitor.config.reference_days)
    deleted: dict[str, list[date]] = {}
    for table, days in retention_days(monitor).items():
        horizon = stored[-1] - timedelta(days=days)
        old = [d for d in monitor.lake.days(table, monitor.name) if d <= horizon and d not in kept]
        for day in old:
            monitor.lake.delete(table, monitor.name, day)
        if old:
            deleted[table] = old
    return deleted


def first_kept_day(monitor: Monitor) -> date | None:
    """The first day whose rows are within every retention, or None where nothing is stored."""
    stored = monitor.lake.days("replay_log", monitor.name)
    return stored[-1] - timedelta(days=min(retention_days(monitor).values()) - 1) if stored else None
