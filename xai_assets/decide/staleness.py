"""Which days have to be computed again, and why: facts in, every reason out.

Belongs here: comparing what the source holds with what is stored. Does not belong here: listing files, reading
footers, run requests.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta


@dataclass(frozen=True)
class DayFact:
    """One day as it is now.

    source_fingerprint: hash over the day's files, None where there is none. stored_fingerprint, stored_status: what
    ingestion noted (None where it did not run). tables: per derived table the stored provenance (None where there
    is no partition) and the one that would be stored now.
    """

    day: date
    source_fingerprint: str | None
    stored_fingerprint: str | None
    stored_status: str | None
    tables: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class StaleDay:
    """A day to compute again. `state` tells one state of the facts from another."""

    day: date
    reasons: tuple[str, ...]
    state: str

    @staticmethod
    def state_hash(group: Sequence["StaleDay"]) -> str:
        """Hash (12 hex digits) over the states of a group of days: the same facts are not run twice."""
        text = json.dumps([(str(s.day), s.state) for s in group])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def stale_days(facts: Sequence[DayFact]) -> list[StaleDay]:
    """Days whose files or provenance differ from what is stored, in order of time.

    A day whose files are gone keeps what was made from them. A day without files that was never ingested has to be
    noted as missing once a later day has files: what waits for it would wait for ever.
    """
    found = []
    newest = max((f.day for f in facts if f.source_fingerprint is not None), default=date.min)
    for fact in sorted(facts, key=lambda f: f.day):
        reasons = _source_reasons(fact, newest) or _table_reasons(fact)
        if reasons:
            found.append(StaleDay(fact.day, tuple(reasons), _state(fact)))
    return found


def ranges_of(stale: Sequence[StaleDay]) -> list[list[StaleDay]]:
    """Groups of days that follow one another, in order of time: each is one run."""
    groups: list[list[StaleDay]] = []
    for day in sorted(stale, key=lambda s: s.day):
        if groups and day.day - groups[-1][-1].day == timedelta(days=1):
            groups[-1].append(day)
        else:
            groups.append([day])
    return groups


def _source_reasons(fact: DayFact, newest: date) -> list[str]:
    if fact.source_fingerprint is None:
        unnoticed = fact.stored_status is None and fact.day < newest
        return ["no file came for it; to be noted as missing"] if unnoticed else []
    if fact.stored_status is None:
        return ["its files have not been read yet"]
    if fact.stored_status == "missing":
        return ["its files came after the day was noted as missing"]
    if fact.stored_fingerprint != fact.source_fingerprint:
        return ["its files changed after they were read"]
    return []


def _table_reasons(fact: DayFact) -> list[str]:
    return [
        f"{table} has not been made" if stored is None else f"{table} was made from other data, models or settings"
        for table, (stored, expected) in fact.tables.items()
        if expected is not None and stored != expected
    ]


def _state(fact: DayFact) -> str:
    tables = {name: list(pair) for name, pair in sorted(fact.tables.items())}
    return json.dumps([fact.source_fingerprint, fact.stored_fingerprint, fact.stored_status, tables])
