"""Why attributions moved: a broken input, a moved population, or a changed use of the feature by the model.

Belongs here: reading the input's own scores beside the attributions', and what came with a new version of the model.
Does not belong here: severities, locations.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INPUT_FAULT, POPULATION_MOVED, USE_CHANGED, RELATION_CHANGED = (
    "input_fault",
    "population_moved",
    "use_changed",
    "relation_changed",
)
DATA, MODEL, BOTH, TRUTH = "data", "model", "both", "truth"
"""What a change came with: other requests, a new version of the model, both; or the outcomes themselves."""
SHARE_RISE = 0.10
"""Rise of the share of nulls, or of values outside the reference's range, from which an input counts as broken."""
SMALL_RISE = 0.02
"""The same where the input's score is an alarm: evidence against the reference's own days stands behind it. Not for
numbers outside the reference's range, which a moved population has too."""
SHARE_DEVIATIONS = 5.0
"""The rise must exceed this many standard deviations of chance as well: 200 requests move a third by 0.1 too often."""
_OUTSIDE = {
    "categorical": "are categories that the model does not know",
    "boolean": "are values that the reference never had",
}
_STUCK = {
    "numeric": "it is stuck: all of its values lie in one single cell, where the reference varied",
    "categorical": "it is stuck: all of its values are one category, where the reference had several",
    "boolean": "it is stuck: all of its values are the same, where the reference had both",
}


@dataclass(frozen=True)
class InputFacts:
    """Scores of one feature's values in one segment and window (role `input`).

    kind: numeric, categorical, boolean, or "" where it is not known; it decides the words.
    """

    psi_corrected_nats: float
    severity: str
    missing_share: float
    missing_share_reference: float
    outside_share: float
    outside_share_reference: float
    is_constant: bool
    n_effective: float
    n_effective_reference: float
    kind: str = ""


@dataclass(frozen=True)
class VersionFacts:
    """What a new version of a model did to one feature's attributions on one day (see `stats.version_effects`).

    verdict: data, model, both or none.
    """

    data_effect_nats: float
    model_effect_nats: float
    verdict: str


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
    >>> fault_texts(InputFacts(1.0, "critical", 0.0, 0.0, 0.12, 0.0, False, 500.0, 9000.0, "categorical"))
    ['12 % of its values are categories that the model does not know (reference 0 %)']
    """
    n, m = facts.n_effective, facts.n_effective_reference
    alarmed = facts.severity not in ("none", "insufficient")
    texts = []
    if _rose(facts.missing_share, facts.missing_share_reference, n, m, SMALL_RISE if alarmed else SHARE_RISE):
        texts.append(_shares("are missing", facts.missing_share, facts.missing_share_reference))
    least = SMALL_RISE if alarmed and facts.kind in _OUTSIDE else SHARE_RISE
    if _rose(facts.outside_share, facts.outside_share_reference, n, m, least):
        what = _OUTSIDE.get(facts.kind, "lie outside the reference range")
        texts.append(_shares(what, facts.outside_share, facts.outside_share_reference))
    if facts.is_constant and not texts:
        texts.append(_STUCK.get(facts.kind, _STUCK["numeric"]))
    return texts


def share_rise(facts: InputFacts) -> float:
    """The larger rise over the reference of the share of nulls and of values outside its range, 0 where none rose.

    >>> round(share_rise(InputFacts(1.0, "critical", 0.5, 0.0, 0.7, 0.1, False, 500.0, 9000.0)), 2)
    0.6
    """
    missing = facts.missing_share - facts.missing_share_reference
    outside = facts.outside_share - facts.outside_share_reference
    return float(max((x for x in (missing, outside) if np.isfinite(x)), default=0.0))


def effect_of(version: VersionFacts | None) -> str:
    """`data`, `model` or `both`. Without a new version, or where it shows nothing, a change came with the data: for a
    fixed model attributions change only because inputs do.

    >>> effect_of(VersionFacts(0.02, 0.8, "model")), effect_of(None)
    ('model', 'data')
    """
    return version.verdict if version is not None and version.verdict in (DATA, MODEL, BOTH) else DATA


def effect_text(version: VersionFacts | None) -> str:
    """The same with its numbers, as a sentence; "" where there is no new version, or it shows nothing.

    >>> effect_text(VersionFacts(0.02, 0.8, "model"))
    'Most of it came with the new model version: 0.80 nats on the same rows, 0.02 nats from the rows.'
    """
    if version is None or version.verdict not in (DATA, MODEL, BOTH):
        return ""
    rows, model = f"{version.data_effect_nats:.2f} nats from the rows", f"{version.model_effect_nats:.2f} nats"
    if version.verdict == DATA:
        return f"It came with the requests, not with the new model version: {rows}, {model} on the same rows."
    if version.verdict == MODEL:
        return f"Most of it came with the new model version: {model} on the same rows, {rows}."
    return f"It came with the requests and with the new model version: {rows}, {model} on the same rows."


def effect_of_difference(versions: Mapping[str, VersionFacts]) -> str:
    """The same for the disagreement of two models, of which either may have a new version; versions: by role.

    >>> effect_of_difference({"production": VersionFacts(0.0, 0.8, "model")})
    'model'
    """
    verdicts = {v.verdict for v in versions.values()}
    if not verdicts & {MODEL, BOTH}:
        return DATA
    return BOTH if verdicts & {DATA, BOTH} else MODEL


def effect_text_of_difference(versions: Mapping[str, VersionFacts]) -> str:
    """The same with its numbers, as a sentence; "" where no new version shows anything.

    >>> effect_text_of_difference({"production": VersionFacts(0.02, 0.8, "model")})
    'Most of it came with the new version of the production model: 0.80 nats on the same rows, 0.02 nats from the rows.'
    """
    shown = {r: v for r, v in versions.items() if v.verdict in (DATA, MODEL, BOTH)}
    if not shown:
        return ""
    numbers = {
        r: f"{v.model_effect_nats:.2f} nats on the same rows, {v.data_effect_nats:.2f} nats from the rows"
        for r, v in shown.items()
    }
    each = "; ".join(f"{r} {text}" if len(shown) > 1 else text for r, text in numbers.items())
    roles = [r for r, v in shown.items() if v.verdict in (MODEL, BOTH)]
    who = f"the new version of the {roles[0]} model" if len(roles) == 1 else "the new versions of both models"
    effect = effect_of_difference(shown)
    if effect == DATA:
        return f"It came with the requests, not with a new model version: {each}."
    return (
        f"It came with the requests and with {who}: {each}."
        if effect == BOTH
        else f"Most of it came with {who}: {each}."
    )


def _rose(now: float, before: float, n: float, m: float, least: float) -> bool:
    if not (np.isfinite(now) and np.isfinite(before) and n > 0 and m > 0):
        return False
    pooled = (now * n + before * m) / (n + m)
    deviation = float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))
    return now - before >= least and now - before >= SHARE_DEVIATIONS * deviation


def _shares(what: str, now: float, before: float) -> str:
    return f"{now:.0%} of its values {what} (reference {before:.0%})".replace("%", " %")
