"""Facts about every day of a monitor: what the source holds now, what is stored, what would be stored now.

Belongs here: gathering, for `decide.staleness` to judge. Does not belong here: the judgement.
"""

from datetime import date, timedelta

from xai_assets.decide.staleness import DayFact
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import DAILY_TABLES, Provenance, all_days
from xai_assets.flow.retention import first_kept_day
from xai_assets.lake.source import source_fingerprint


def day_facts(monitor: Monitor, today: date) -> list[DayFact]:
    """One fact per day from the first day (or the first within retention) to yesterday (or the monitor's end).

    Raises SourceError or OSError where the source cannot be listed: that is never "nothing new".
    """
    config = monitor.config
    last = min(config.end_date or today, today - timedelta(days=1))
    kept = first_kept_day(monitor)
    first = max(config.first_date, kept) if kept is not None else config.first_date
    provenance = Provenance(monitor)
    return [_fact(provenance, day) for day in all_days(first, last)]


def _fact(provenance: Provenance, day: date) -> DayFact:
    files = provenance.files(day)
    footer = provenance.footer("replay_log", day)
    compared = {t: (provenance.stored(t, day), provenance.expected(t, day)) for t in DAILY_TABLES}
    return DayFact(
        day=day,
        source_fingerprint=source_fingerprint(files) if files else None,
        stored_fingerprint=footer.get("source_fingerprint"),
        stored_status=footer.get("status"),
        tables={t: pair for t, pair in compared.items() if pair[1] is not None},
    )
