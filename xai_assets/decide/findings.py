"""What one day's scores say: per role and feature one finding with its place, its cause and its consequences.

Belongs here: reading one day's rows of drift scores and label scores. Does not belong here: memory of other days (see
`alerts`), severities (see `severity`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.config import DriftConfig
from xai_assets.decide.causes import (
    DATA,
    INPUT_FAULT,
    POPULATION_MOVED,
    RELATION_CHANGED,
    TRUTH,
    USE_CHANGED,
    InputFacts,
    VersionFacts,
    effect_of,
    effect_of_difference,
    effect_text,
    effect_text_of_difference,
    fault_texts,
    input_cause,
    share_rise,
)
from xai_assets.decide.localise import localise, localise_residuals, localise_rise, nested
from xai_assets.errors import XaiAssetsError
from xai_assets.records import DIFFERENCE, INPUT, MODEL_ROLES, OVERALL, SEVERITIES, WHOLE, Float64, severity_rank

Columns = Mapping[str, Any]
"""Rows as columns: name → sequence or array, all of one length; None and NaN both mean "not defined"."""

SCORE_COLUMNS = (
    "role",
    "population",
    "segment",
    "feature",
    "window_days",
    "severity",
    "evidence",
    "threshold",
    "n_effective",
    "n_effective_reference",
    "psi_corrected_nats",
    "psi_complement_nats",
    "importance",
    "importance_reference",
    "importance_share",
    "missing_share",
    "missing_share_reference",
    "outside_share",
    "outside_share_reference",
    "is_constant",
)
"""Columns of `drift_scores` that `daily_findings` reads. Only population `all` is judged: which requests diverge
changes with the models' inputs, so attributions of the divergent ones move without any fault of their own."""
LABEL_COLUMNS = (
    "role",
    "segment",
    "feature",
    "window_days",
    "severity",
    "label_count",
    "residual_shift",
    "evidence",
    "threshold",
    "metric",
    "metric_value",
    "metric_reference",
)
"""Columns of `label_scores` that `daily_findings` reads."""
_RANK = "rank"
ATTRIBUTION_ROLES = (*MODEL_ROLES, DIFFERENCE)
Judged = Mapping[tuple[str, str], frozenset[str]]
"""Features with enough requests or labels to be judged, by (role, segment); without those that have none. As a
mapping, for the fold holds one for every day and most segments share their features."""
Versions = Mapping[tuple[str, str], VersionFacts]
"""What a new version of a model changed on a day, by (role, feature)."""


@dataclass(frozen=True)
class Finding:
    """One feature's drift in one role on one day.

    effect in effect_unit (corrected PSI in nats, or change of residuals in output units); evidence: −log10 of its
    chance when nothing drifts (see `stats.dispersion`); exceeding: every segment in which it shows; moved_with:
    features whose attributions moved as a consequence; detail: the numbers, as sentences.
    """

    role: str
    feature: str
    segment: str
    window_days: int
    cause: str
    severity: str
    effect: float
    effect_unit: str
    evidence: float
    exceeding: tuple[str, ...]
    detail: str
    moved_with: tuple[str, ...] = ()
    effect_of: str = DATA


@dataclass(frozen=True)
class Disturbance:
    """A broken input or moved population on one day: label residuals of these requests say nothing about the truth."""

    feature: str
    segment: str
    cause: str


@dataclass(frozen=True)
class DayFindings:
    """Everything later stages need of one day.

    findings: at most one per role and feature, from attributions and inputs. continued: broken inputs for which
    findings of the models' attributions speak; they keep a running alert of the input alive and open none. relations:
    the same from labels, every candidate, the strongest evidence first. judged, labels_judged: what enough requests or
    labels were there for.
    disturbances: what was wrong with the inputs.
    """

    day: date
    findings: tuple[Finding, ...] = ()
    continued: tuple[Finding, ...] = ()
    relations: tuple[Finding, ...] = ()
    judged: Judged = field(default_factory=dict)
    labels_judged: Judged = field(default_factory=dict)
    disturbances: tuple[Disturbance, ...] = ()


def daily_findings(
    day: date,
    scores: Columns | None,
    label_scores: Columns | None,
    drift: DriftConfig,
    *,
    kinds: Mapping[str, str] | None = None,
    versions: Versions | None = None,
) -> DayFindings:
    """Findings of one day from that day's rows alone.

    Parameters
    ----------
    day
        The day on which the rows' windows end.
    scores, label_scores
        Graded rows (`SCORE_COLUMNS`, `LABEL_COLUMNS`), or None where none are stored.
    drift
        Floors.
    kinds
        Kind of each feature, for the words of a broken input.
    versions
        What a new version of a model changed on this day, by (role, feature). Everything else came with the data.

    Raises
    ------
    XaiAssetsError
        Where a column is missing.
    """
    views = _views(scores, SCORE_COLUMNS) if scores is not None else {}
    label_views = _views(label_scores, LABEL_COLUMNS) if label_scores is not None else {}
    inputs = _Inputs(views[INPUT], drift, kinds or {}) if INPUT in views else None
    drifting = [(views[r], f) for r in ATTRIBUTION_ROLES if r in views for f in views[r].drifting()]
    found = [_attribution_finding(view, feature, inputs, drift) for view, feature in drifting]
    faults = _input_faults(views, inputs, found, drift)
    moved = {f.feature for f in found if f.role in MODEL_ROLES}
    found = _fold_consequences([*found, *(f for f in faults if f.feature not in moved)])
    found = [_told_apart(f, versions or {}) for f in found]
    relations = [f for r in MODEL_ROLES if r in label_views for f in _relations(label_views[r])]
    return DayFindings(
        day=day,
        findings=tuple(found),
        continued=tuple(f for f in faults if f.feature in moved),
        relations=tuple(sorted(relations, key=lambda f: (-f.evidence, f.role, f.feature))),
        judged=_judged(views),
        labels_judged=_judged(label_views),
        disturbances=tuple(inputs.disturbances()) if inputs else (),
    )


def _told_apart(finding: Finding, versions: Versions) -> Finding:
    """The finding with what it came with: the data, a new version of the model (of either for their difference), or
    both."""
    if finding.role == DIFFERENCE:
        of = {r: versions[r, finding.feature] for r in MODEL_ROLES if (r, finding.feature) in versions}
        effect, text = effect_of_difference(of), effect_text_of_difference(of)
    else:
        version = versions.get((finding.role, finding.feature))
        effect, text = effect_of(version), effect_text(version)
    return replace(finding, effect_of=effect, detail=f"{finding.detail} {text}".rstrip())


def _judged(views: "Mapping[str, _View]") -> Judged:
    return {(role, s): features for role, view in views.items() for s, features in view.judged()}


class _View:
    """Rows of one role, each segment × feature in its judged window.

    That is the shortest window in which the feature exceeds anywhere, the same one for all segments, so that they
    compare; where it is not judged there, or exceeds nowhere, the shortest one with enough requests.
    """

    def __init__(self, role: str, rows: dict[str, npt.NDArray[Any]], chosen: npt.NDArray[np.int64]) -> None:
        self.role = role
        self.rows = rows
        segments: dict[str, int] = {}
        features: dict[str, int] = {}
        s = [segments.setdefault(x, len(segments)) for x in rows["segment"][chosen]]
        f = [features.setdefault(x, len(features)) for x in rows["feature"][chosen]]
        self.segments, self.features = tuple(segments), tuple(features)
        self.at = np.full((len(segments), len(features)), -1, dtype=np.int64)
        self.ranks = rows[_RANK]
        windows, feature_of = rows["window_days"][chosen], np.array(f, dtype=np.int64)
        loud = self.ranks[chosen] >= severity_rank("noted")
        shortest = np.full(len(features), np.inf)
        np.minimum.at(shortest, feature_of[loud], windows[loud])
        preferred = windows == shortest[feature_of]
        # What is written last remains: the longest window goes first, preferred rows go last.
        order = np.lexsort((-windows, preferred))
        self.at[np.array(s, dtype=np.int64)[order], feature_of[order]] = chosen[order]

    def row(self, segment: str, feature: str) -> int | None:
        if segment not in self.segments or feature not in self.features:
            return None
        at = int(self.at[self.segments.index(segment), self.features.index(feature)])
        return at if at >= 0 else None

    def value(self, column: str, row: int) -> Any:
        return self.rows[column][row]

    def of_feature(self, column: str, feature: str) -> Float64:
        """A column over the segments [S]; NaN where a segment is not judged."""
        at = self.at[:, self.features.index(feature)]
        return np.where(at >= 0, self.rows[column][at].astype(np.float64), np.nan)

    def exceeds(self, feature: str) -> npt.NDArray[np.bool_]:
        at = self.at[:, self.features.index(feature)]
        return np.asarray((at >= 0) & (self.ranks[at] >= severity_rank("noted")))

    def drifting(self) -> list[str]:
        """Features that are at least noted in some segment."""
        loud = np.any((self.at >= 0) & (self.ranks[self.at] >= severity_rank("noted")), axis=0).tolist()
        return [f for f, x in zip(self.features, loud, strict=True) if x]

    def judged(self) -> list[tuple[str, frozenset[str]]]:
        """Per segment the features that are judged there, where any is; equal sets are one object."""
        sets: dict[frozenset[str], frozenset[str]] = {}
        found = []
        for segment, there in zip(self.segments, (self.at >= 0).tolist(), strict=True):
            features = frozenset(f for f, x in zip(self.features, there, strict=True) if x)
            found.append((segment, sets.setdefault(features, features)))
        return [(segment, features) for segment, features in found if features]


def _views(columns: Columns, wanted: Sequence[str]) -> dict[str, _View]:
    missing = [c for c in wanted if c not in columns]
    if missing:
        raise XaiAssetsError(
            "rows of scores lack columns", expected=", ".join(wanted), found=f"no {', '.join(missing)}"
        )
    text = ("role", "population", "segment", "feature", "severity", "metric")
    rows = {c: np.asarray(columns[c], dtype=object if c in text else np.float64) for c in wanted}
    used = rows["severity"] != "insufficient"
    if "population" in rows:
        used &= (rows["population"] == "all") & (rows["feature"] != WHOLE)
    rows = {c: values[used] for c, values in rows.items()}
    rank = {name: severity_rank(name) for name in SEVERITIES}
    rows[_RANK] = np.array([rank[x] for x in rows["severity"]], dtype=np.int64)
    return {r: _View(r, rows, np.flatnonzero(rows["role"] == r)) for r in dict.fromkeys(rows["role"])}


class _Inputs:
    """What the inputs themselves did, by feature and segment."""

    def __init__(self, view: _View, drift: DriftConfig, kinds: Mapping[str, str]) -> None:
        self._view = view
        self._kinds = kinds
        self._noted = _place_floor(drift)
        self._located: dict[str, str | None] = {}

    def facts(self, feature: str, segment: str) -> InputFacts | None:
        row = self._view.row(segment, feature)
        if row is None:
            return None
        numbers = {c: float(self._view.value(c, row)) for c in _FACT_COLUMNS}
        constant = bool(self._view.value("is_constant", row) == 1.0)
        severity, kind = str(self._view.value("severity", row)), self._kinds.get(feature, "")
        return InputFacts(severity=severity, is_constant=constant, kind=kind, **numbers)

    def cause(self, feature: str, segment: str) -> str:
        return input_cause(self.facts(feature, segment))

    def location(self, feature: str) -> str | None:
        """Where the input of a feature is broken, else where it drifts, or None."""
        if feature not in self._located:
            view = self._view
            place = _locate(view, feature, self._noted) if feature in view.features else None
            self._located[feature] = place if place is None else self._broken_place(feature) or place
        return self._located[feature]

    def _broken_place(self, feature: str) -> str | None:
        """Where the shares say that it is broken: they tell a place more sharply than a PSI that seasons move too."""
        facts = {s: x for s in self._view.segments if (x := self.facts(feature, s)) is not None}
        rises = {s: share_rise(x) for s, x in facts.items()}
        broken = [s for s, x in facts.items() if input_cause(x) == INPUT_FAULT]
        return localise_rise(rises, {s: x.n_effective for s, x in facts.items()}, broken)

    def severity(self, feature: str) -> str:
        """The worst of any segment."""
        at = self._view.at[:, self._view.features.index(feature)]
        return str(SEVERITIES[int(self._view.ranks[at[at >= 0]].max(initial=0))])

    def features(self) -> tuple[str, ...]:
        return self._view.features

    def disturbances(self) -> list[Disturbance]:
        places = [(f, self.location(f)) for f in self._view.features]
        return [Disturbance(f, s, self.cause(f, s)) for f, s in places if s is not None and self.cause(f, s)]


_FACT_COLUMNS = (
    "psi_corrected_nats",
    "missing_share",
    "missing_share_reference",
    "outside_share",
    "outside_share_reference",
    "n_effective",
    "n_effective_reference",
)


def _place_floor(drift: DriftConfig) -> float:
    """Corrected PSI under which everybody else counts as unmoved: floors of another metric say nothing about it."""
    return drift.effect_floors.nats[0]


def _locate(view: _View, feature: str, noted: float) -> str | None:
    psi, complement = (view.of_feature(c, feature) for c in ("psi_corrected_nats", "psi_complement_nats"))
    return localise(view.segments, psi, complement, view.exceeds(feature), noted)


def _fold_consequences(found: Sequence[Finding]) -> list[Finding]:
    """Findings without those that follow from another feature's input; these go to that finding's `moved_with`.

    In the same role where the other feature drifts there too, else in any role.
    """
    roots = [f for f in found if f.cause in (INPUT_FAULT, POPULATION_MOVED)]
    followers: dict[tuple[str, str], set[str]] = {}
    kept = []
    for finding in found:
        root = _root_of(finding, roots) if finding.cause == USE_CHANGED else None
        if root is None:
            kept.append(finding)
        elif root.feature != finding.feature:
            followers.setdefault((root.role, root.feature), set()).add(finding.feature)
    return [replace(f, moved_with=tuple(sorted(followers.get((f.role, f.feature), ())))) for f in kept]


def _root_of(finding: Finding, roots: Sequence[Finding]) -> Finding | None:
    """The strongest broken or moved input in the same place: same role first, broken before moved, then by effect."""
    here = [r for r in roots if nested(r.segment, finding.segment)]
    return max(here, key=lambda r: (r.role == finding.role, r.cause == INPUT_FAULT, r.effect, r.feature), default=None)


def _attribution_finding(view: _View, feature: str, inputs: _Inputs | None, drift: DriftConfig) -> Finding:
    segment = _locate(view, feature, _place_floor(drift)) or OVERALL
    cause, segment = _cause_and_place(view, feature, segment, inputs)
    row = view.row(segment, feature)
    if row is None or view.ranks[row] < severity_rank("noted"):
        # `overall` may be below the floor where several segments, none of them alone, are above it.
        row = _loudest(view, feature, "psi_corrected_nats")
        segment = segment if view.row(segment, feature) is not None else str(view.value("segment", row))
    effect = float(view.value("psi_corrected_nats", row))
    severity = str(view.value("severity", row))
    window = int(view.value("window_days", row))
    before, now = (float(view.value(c, row)) for c in ("importance_reference", "importance"))
    spread = "" if window == 1 else f" over {window} days"
    evidence, threshold = (float(view.value(c, row)) for c in ("evidence", "threshold"))
    numbers = (
        f"corrected PSI {effect:.2f} nats{spread} (evidence {evidence:.1f}, alarm from {threshold:.1f}), "
        f"mean |φ| {before:.3g} → {now:.3g}."
    )
    detail = f"{numbers} {_cause_text(cause, feature, segment, inputs)}".rstrip()
    return Finding(
        role=view.role,
        feature=feature,
        segment=segment,
        window_days=window,
        cause=cause,
        severity=severity,
        effect=effect,
        effect_unit="nats",
        evidence=evidence,
        exceeding=_exceeding(view, feature),
        detail=detail,
    )


def _cause_and_place(view: _View, feature: str, segment: str, inputs: _Inputs | None) -> tuple[str, str]:
    """The input's own state in the place of the drift. Where the input shows one place clearly, that is the place."""
    place = inputs.location(feature) if inputs is not None else None
    if inputs is None or place is None:
        return USE_CHANGED, segment
    broken = inputs.cause(feature, place) == INPUT_FAULT
    if (broken or segment == OVERALL) and place != OVERALL and place in _exceeding(view, feature):
        segment = place
    if not nested(place, segment):
        # The input moved elsewhere; what of it shows here is that place's shadow.
        return USE_CHANGED, segment
    return inputs.cause(feature, segment) or inputs.cause(feature, place) or USE_CHANGED, segment


def _exceeding(view: _View, feature: str) -> tuple[str, ...]:
    return tuple(s for s, x in zip(view.segments, view.exceeds(feature), strict=True) if x)


def _loudest(view: _View, feature: str, effect: str) -> int:
    """Row of the worst segment."""
    at = view.at[:, view.features.index(feature)]
    rows = [int(r) for r, x in zip(at, view.exceeds(feature), strict=True) if x]
    return max(rows, key=lambda r: (view.ranks[r], float(view.value(effect, r))))


def _cause_text(cause: str, feature: str, segment: str, inputs: _Inputs | None) -> str:
    facts = inputs.facts(feature, segment) if inputs is not None else None
    if cause == INPUT_FAULT and facts is not None:
        return f"{_capital('; '.join(fault_texts(facts)))}: the input looks broken."
    if cause == POPULATION_MOVED:
        size = "" if facts is None else f" (corrected PSI {facts.psi_corrected_nats:.2f} nats)"
        return f"Its values moved too{size}: other requests come in than in the reference."
    return "Its own values did not move: the model uses it differently beside the other inputs."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _input_faults(
    views: Mapping[str, _View], inputs: _Inputs | None, found: Sequence[Finding], drift: DriftConfig
) -> list[Finding]:
    """Broken inputs of features that matter, with the models whose attributions moved with them."""
    if inputs is None:
        return []
    moved: dict[str, list[str]] = {}
    for f in found:
        if f.role in MODEL_ROLES:
            moved.setdefault(f.feature, []).append(f.role)
    faults = (_input_finding(views, inputs, f, tuple(moved.get(f, ())), drift) for f in inputs.features())
    return [f for f in faults if f is not None]


def _input_finding(
    views: Mapping[str, _View], inputs: _Inputs, feature: str, moved: tuple[str, ...], drift: DriftConfig
) -> Finding | None:
    segment = inputs.location(feature)
    facts = inputs.facts(feature, segment) if segment is not None else None
    if segment is None or facts is None or input_cause(facts) != INPUT_FAULT:
        return None
    shares = [_share_of(views[r], feature, segment) for r in MODEL_ROLES if r in views]
    share = max(shares, default=0.0)
    if share < drift.min_importance_share:
        return None
    view = views[INPUT]
    row = view.row(segment, feature)
    effect = facts.psi_corrected_nats
    texts = _capital("; ".join(fault_texts(facts)))
    who = " and ".join(moved)
    consequence = (
        f"Attributions of the {who} model moved with it." if moved else "No model's attributions have moved so far."
    )
    return Finding(
        role=INPUT,
        feature=feature,
        segment=segment,
        window_days=int(view.value("window_days", row)) if row is not None else 1,
        cause=INPUT_FAULT,
        severity=inputs.severity(feature),
        effect=effect,
        effect_unit="nats",
        evidence=float(view.value("evidence", row)) if row is not None else 0.0,
        exceeding=_exceeding(view, feature),
        detail=f"{texts}. {consequence}",
    )


def _share_of(view: _View, feature: str, segment: str) -> float:
    row = view.row(segment, feature)
    share = float(view.value("importance_share", row)) if row is not None else 0.0
    return 0.0 if np.isnan(share) else share


def _relations(view: _View) -> list[Finding]:
    """Candidates for a changed relation. `*`, the common change of all, only where no single feature shows one."""
    features = view.drifting()
    single = [f for f in features if f != WHOLE]
    return [_relation(view, f) for f in single or features]


def _relation(view: _View, feature: str) -> Finding:
    exceeds, shift = view.exceeds(feature), view.of_feature("residual_shift", feature)
    judged = np.flatnonzero(view.at[:, view.features.index(feature)] >= 0)
    names = [view.segments[i] for i in judged]
    labels = view.of_feature("label_count", feature)
    segment = localise_residuals(names, np.nan_to_num(shift[judged]), labels[judged], exceeds[judged]) or OVERALL
    row = view.row(segment, feature)
    if row is None or view.ranks[row] < severity_rank("noted"):
        row = _loudest(view, feature, "residual_shift")
    effect, evidence, threshold = (float(view.value(c, row)) for c in ("residual_shift", "evidence", "threshold"))
    window, severity = int(view.value("window_days", row)), str(view.value("severity", row))
    why = f"(evidence {evidence:.1f}, alarm from {threshold:.1f})"
    detail = f"residuals changed by {effect:.3g} {why}{_metric_text(view, segment)}."
    return Finding(
        role=view.role,
        feature=feature,
        segment=segment,
        window_days=window,
        cause=RELATION_CHANGED,
        effect_of=TRUTH,
        severity=severity,
        effect=effect,
        effect_unit="output units",
        evidence=evidence,
        exceeding=_exceeding(view, feature),
        detail=detail,
    )


def _metric_text(view: _View, segment: str) -> str:
    row = view.row(segment, WHOLE)
    if row is None:
        return ""
    before, now = (float(view.value(c, row)) for c in ("metric_reference", "metric_value"))
    name = {"auc": "AUC", "mae": "mean absolute error"}.get(str(view.value("metric", row)), "metric")
    return "" if np.isnan(before) or np.isnan(now) else f", {name} {before:.3g} → {now:.3g}"
