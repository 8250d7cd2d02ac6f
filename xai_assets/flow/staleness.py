"""Facts about every day of a monitor: what the source holds now, what is stored, what would be stored now.

Belongs here: gathering, for `decide.staleness` to judge. Does not belong here: the judgement.
"""

from datetime import date, timedelta

from xai_assets.decide.staleness import DayFact
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import DAILY_TABLES, Provenance, all_days
from xai_assets.flow.retention import first_kept_day
from xai_assets.lake.source import source_fingerprint

KEPT_TABLES = (
    "feature_statistics",
    "drift_scores",
    "label_scores",
    "concept_drift",
    "drift_alerts",
    "recommendations",
)
"""What is made of tables without retention alone, so that it can be made again whatever the age of the day."""
REFERENCE_TABLES = ("residual_histograms", "error_stream")


def day_facts(monitor: Monitor, today: date) -> list[DayFact]:
    """One fact per day from the first day to yesterday (or the monitor's end).

    Of a day whose rows are past retention and whose histograms are made only what follows from kept tables is a fact
    (`KEPT_TABLES`): scores are graded anew with other settings, so that alerts are folded over days of one kind. Where
    its histograms are over another reference's cells, nothing can be made of it any more and it is left out.
    Reference days are always in. Raises SourceError or OSError where the source cannot be listed: that is never
    "nothing new".
    """
    config = monitor.config
    last = min(config.end_date or today, today - timedelta(days=1))
    kept, provenance = first_kept_day(monitor), Provenance(monitor)
    cohorts, reference = set(provenance.residual_reference_days()), set(config.reference_days)
    done = set(monitor.lake.days("attribution_histograms", monitor.name))
    facts = []
    for day in all_days(config.first_date, last):
        is_past = kept is not None and day < kept and day in done and day not in reference
        if is_past and day in cohorts and monitor.lake.exists("replay_log", monitor.name, day):
            is_past = False  # its labels can still be compared anew
        if not is_past:
            facts.append(_fact(provenance, day))
        elif fact := _past_fact(provenance, day, of_reference=day in cohorts):
            facts.append(fact)
    return facts


def _past_fact(provenance: Provenance, day: date, *, of_reference: bool) -> DayFact | None:
    """A day whose rows are past retention; of_reference: its residuals and errors are part of the reference."""
    tables: tuple[str, ...] = REFERENCE_TABLES if of_reference else ()
    if provenance.comparable("attribution_histograms", day) is not None:
        tables += KEPT_TABLES
    pairs = {t: (provenance.stored(t, day), provenance.expected(t, day)) for t in tables}
    pairs = {t: pair for t, pair in pairs.items() if of_reference or pair[1] is not None}
    return DayFact(day, None, None, "past retention", pairs) if pairs else None


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
