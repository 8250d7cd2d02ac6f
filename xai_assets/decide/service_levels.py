"""Whether a day's explanations meet their targets, and in words what is missing.

Belongs here: measured levels and targets in, verdicts with every reason out. Does not belong here: measuring (see
`stats.explanation_quality`, `flow.service_levels`), asset checks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from xai_assets.config import ExplanationTargets
from xai_assets.records import OVERALL, ServiceLevel

CHECKED = {
    "coverage": "At least {:g} % of the requests, and of those in every large segment, have a finite explanation.",
    "median_ms": "Half of the requests are explained in less than {:g} ms each, one at a time.",
    "p95_ms": "95 % of the requests are explained in less than {:g} ms each, one at a time.",
    "stability": "Attributions of a request and its perturbed neighbours have a mean cosine similarity above {:g}.",
    "error_rate": "Less than {:g} % of the chosen requests are without a finite explanation.",
}
"""Measures that have a target, with what it asks for. The value of each is a field of `ExplanationTargets`."""
_PERCENT = ("coverage", "error_rate")
NOISE_SD = 3.0
"""A segment counts as less covered than the target only beyond this many standard errors of its share."""


@dataclass(frozen=True)
class Verdict:
    """One measure against its target over some days.

    worst: the figure farthest from the target, None where nothing could be measured. budget_rows: the smallest
    `explanation.budget_rows_per_day` with which coverage would meet its target; 0 where that is not what is missing.
    """

    measure: str
    target: float
    passed: bool
    worst: float | None
    sentences: tuple[str, ...]
    budget_rows: int = 0


def description(measure: str, targets: ExplanationTargets) -> str:
    """What a check asks for, as a sentence.

    >>> description("error_rate", ExplanationTargets(error_rate=0.0004))
    'Less than 0.04 % of the chosen requests are without a finite explanation.'
    """
    target = getattr(targets, measure)
    return CHECKED[measure].format(100 * target if measure in _PERCENT else target)


def judge(
    levels: Mapping[date, Sequence[ServiceLevel]], targets: ExplanationTargets, *, min_segment_rows: int
) -> tuple[Verdict, ...]:
    """A verdict per measure with a target, over all roles and days.

    Coverage and stability must reach their targets, times and error rate stay below theirs. What a day could not
    measure (no request, no numeric feature) is not held against it. Coverage is also judged in segments of at least
    `min_segment_rows` requests, where the day as a whole meets the target: a budget that is too small is one fault, not
    one per segment.
    """
    return tuple(_judge(measure, levels, getattr(targets, measure), min_segment_rows) for measure in CHECKED)


def _judge(
    measure: str, levels: Mapping[date, Sequence[ServiceLevel]], target: float, min_segment_rows: int
) -> Verdict:
    known = [(d, x) for d, day in levels.items() for x in day if x.measure == measure and math.isfinite(x.value)]
    overall = [(d, x) for d, x in known if x.segment == OVERALL]
    missed = [(d, x) for d, x in overall if not _meets(measure, x.value, target)]
    values = [x.value for _, x in overall]
    worst = None if not values else min(values) if measure in ("coverage", "stability") else max(values)
    if measure != "coverage":
        return Verdict(measure, target, not missed, worst, tuple(_sentence(d, x, target) for d, x in missed))
    short = [(d, x) for d, x in known if x.segment != OVERALL and (d, x.role) not in {(m, y.role) for m, y in missed}]
    short = [(d, x) for d, x in short if x.row_count >= min_segment_rows and _is_short(x, target)]
    chosen = {(d, x.role): x.row_count for d, day in levels.items() for x in day if _is_overall_error_rate(x)}
    needed = max((n for d, x in missed if (n := _budget(x, chosen.get((d, x.role), 0), target))), default=0)
    sentences = [_coverage_sentence(d, x, chosen.get((d, x.role), 0), target) for d, x in missed]
    sentences += [_sentence(d, x, target) for d, x in short]
    worst = min([worst, *(x.value for _, x in short)]) if worst is not None else None
    return Verdict(measure, target, not sentences, worst, tuple(sentences), needed)


def _meets(measure: str, value: float, target: float) -> bool:
    if measure == "coverage":
        return value >= target
    return value > target if measure == "stability" else value < target


def _is_short(level: ServiceLevel, target: float) -> bool:
    noise = NOISE_SD * math.sqrt(target * (1 - target) / level.row_count)
    return level.value < target - noise


def _is_overall_error_rate(level: ServiceLevel) -> bool:
    return level.measure == "error_rate" and level.segment == OVERALL


def _budget(level: ServiceLevel, chosen: int, target: float) -> int:
    """Rows per day that would meet the target; 0 where enough were chosen and explanations failed."""
    needed = math.ceil(target * level.row_count)
    return needed if chosen < needed else 0


def _coverage_sentence(day: date, level: ServiceLevel, chosen: int, target: float) -> str:
    needed = _budget(level, chosen, target)
    way_out = (
        f"explanation.budget_rows_per_day of at least {needed:,} would meet it"
        if needed
        else f"{chosen:,} were chosen, but not all could be explained"
    )
    return f"{_sentence(day, level, target)}; {way_out}"


def _sentence(day: date, level: ServiceLevel, target: float) -> str:
    where = level.role if level.segment == OVERALL else f"{level.role}, {level.segment}"
    shown = (f"{v:.2%}" if level.unit == "share" else f"{v:.3g} {level.unit}" for v in (level.value, target))
    value, wanted = shown
    return f"{day} {where}: {level.measure} is {value} of {level.row_count:,} requests, the target is {wanted}"
