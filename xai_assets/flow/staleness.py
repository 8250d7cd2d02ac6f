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
    """One fact per day from the first day to yesterday (or the monitor's end).

    Days whose rows are past retention and whose histograms are made are left out: nothing can be made of them any
    more. Reference days are always in. Raises SourceError or OSError where the source cannot be listed: that is never
    "nothing new".
    """
    config = monitor.config
    last = min(config.end_date or today, today - timedelta(days=1))
    kept, provenance = first_kept_day(monitor), Provenance(monitor)
    needed = {*config.reference_days, *provenance.residual_reference_days()}
    done = set(monitor.lake.days("attribution_histograms", monitor.name))
    days = (d for d in all_days(config.first_date, last) if kept is None or d >= kept or d in needed or d not in done)
    reference = set(config.reference_days)
    past = (d for d in done if kept is not None and d < kept and d not in reference)
    gone = {d for d in past if not monitor.lake.exists("replay_log", monitor.name, d)}
    return [_residual_fact(provenance, day) if day in gone else _fact(provenance, day) for day in days]


def _residual_fact(provenance: Provenance, day: date) -> DayFact:
    """A day whose rows are past retention, but whose residuals and errors are part of the reference."""
    tables = ("residual_histograms", "error_stream")
    pairs = {t: (provenance.stored(t, day), provenance.expected(t, day)) for t in tables}
    return DayFact(day, None, None, "past retention", pairs)


def _fact(provenance: Provenance, day: date) -> DayFact:
    files = provenance.files(day)
    footer = provenance.footer("replay_log", day)
    never_read = not files and not footer
    arrived = bool(provenance.monitor.config.labels) and bool(provenance.files(day, "labels"))
    tables = (("labels",) if arrived else ()) if never_read else DAILY_TABLES
    compared = {t: (provenance.stored(t, day), provenance.expected(t, day)) for t in tables}
    return DayFact(
        day=day,
        source_fingerprint=source_fingerprint(files) if files else None,
        stored_fingerprint=footer.get("source_fingerprint"),
        stored_status=footer.get("status"),
        tables={t: pair for t, pair in compared.items() if pair[1] is not None},
    )
