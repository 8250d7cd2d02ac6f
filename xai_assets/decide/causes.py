"""Why attributions moved: a broken input, a moved population, or a changed use of the feature by the model.

Belongs here: reading the input's own scores beside the attributions'. Does not belong here: severities, locations.
"""

from dataclasses import dataclass

import numpy as np

INPUT_FAULT, POPULATION_MOVED, USE_CHANGED, RELATION_CHANGED = (
    "input_fault",
    "population_moved",
    "use_changed",
    "relation_changed",
)
SHARE_RISE = 0.10
"""Rise of the share of nulls, or of values outside the reference's range, from which an input counts as broken."""
SHARE_DEVIATIONS = 5.0
"""The rise must exceed this many standard deviations of chance as well: 200 requests move a third by 0.1 too often."""


@dataclass(frozen=True)
class InputFacts:
    """Scores of one feature's values in one segment and window (role `input`)."""

    psi_corrected_nats: float
    severity: str
    missing_share: float
    missing_share_reference: float
    outside_share: float
    outside_share_reference: float
    is_constant: bool
    n_effective: float
    n_effective_reference: float


def input_cause(facts: InputFacts | None) -> str:
    """`input_fault`, `population_moved`, or "" where the input is as in the reference (or unknown)."""
    if facts is None or facts.severity == "insufficient":
        return ""
    if fault_texts(facts):
        return INPUT_FAULT
    return POPULATION_MOVED if facts.severity != "none" else ""


def fault_texts(facts: InputFacts) -> list[str]:
    """What looks broken, as sentences without a full stop; empty where nothing does.

    >>> fault_texts(InputFacts(1.0, "critical", 0.5, 0.0, 0.0, 0.0, False, 500.0, 9000.0))
    ['50 % of its values are missing (reference 0 %)']
    """
    n, m = facts.n_effective, facts.n_effective_reference
    texts = []
    if _rose(facts.missing_share, facts.missing_share_reference, n, m):
        texts.append(_shares("are missing", facts.missing_share, facts.missing_share_reference))
    if _rose(facts.outside_share, facts.outside_share_reference, n, m):
        texts.append(_shares("lie outside the reference range", facts.outside_share, facts.outside_share_reference))
    if facts.is_constant and not texts:
        texts.append("all of its values lie in one single cell, where the reference used several")
    return texts


def _rose(now: float, before: float, n: float, m: float) -> bool:
    if not (np.isfinite(now) and np.isfinite(before) and n > 0 and m > 0):
        return False
    pooled = (now * n + before * m) / (n + m)
    deviation = float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))
    return now - before >= SHARE_RISE and now - before >= SHARE_DEVIATIONS * deviation


def _shares(what: str, now: float, before: float) -> str:
    return f"{now:.0%} of its values {what} (reference {before:.0%})".replace("%", " %")
