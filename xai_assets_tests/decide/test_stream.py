"""From requests to recommendations: simulated days through histograms, calibration, scores, severities, findings and
the fold.

15 features in 12 segments, 5,000 requests a day, 28 reference days. A planted unit error in one channel, a population
shift in one region, and their healthy twin over 60 days.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce

import numpy as np
import pytest

from xai_assets.config import DriftConfig, RemediationConfig
from xai_assets.decide.alerts import fold_findings
from xai_assets.decide.findings import DayFindings, daily_findings
from xai_assets.decide.recommend import recommend
from xai_assets.decide.severity import grade
from xai_assets.records import MODEL_ROLES, Alert, Edges, HistogramBlock, Recommendation
from xai_assets.stats.calibration import DailyCounts, calibrate
from xai_assets.stats.drift import effective_rows
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block
from xai_assets.stats.scores import Normal, score_blocks

FIRST = date(2025, 1, 1)
REFERENCE_DAYS, REQUESTS = 28, 5_000
REFERENCE = tuple(FIRST + timedelta(days=i) for i in range(REFERENCE_DAYS))
FEATURES = ("income", "debt", *(f"number_{i}" for i in range(8)), "level_0", "level_1", "flag_0", "flag_1", "count")
CONTEXT = {"channel": (0.45, 0.25, 0.15, 0.15), "region": (0.3, 0.25, 0.25, 0.2), "tier": (0.6, 0.3, 0.1)}
SEGMENTS = ("overall", *(f"{c}={v}" for c, shares in CONTEXT.items() for v in range(len(shares))))
DRIFT = DriftConfig()
Fault = Callable[[np.ndarray, np.ndarray], None]
"""Changes the inputs [n, d] in place, given the segment codes [n, C]."""


@dataclass(frozen=True)
class Requests:
    """One day: values per role [n, d] and segment codes [n, C]."""

    values: dict[str, np.ndarray]
    codes: np.ndarray


def _requests(day: int, fault: Fault | None = None) -> Requests:
    rng = np.random.default_rng([17, day])
    n = REQUESTS
    codes = [np.zeros(n, dtype=np.int64)]
    for context, shares in CONTEXT.items():
        codes.append(rng.choice(len(shares), n, p=shares) + SEGMENTS.index(f"{context}=0"))
    x = rng.normal(size=(n, 15))
    x[:, 0] = np.exp(10.6 + 0.5 * x[:, 0])
    x[:, 1] = np.exp(9 + 0.6 * x[:, 1] + 0.2 * np.log(x[:, 0] / 40_000))
    x[:, 10], x[:, 11] = rng.integers(0, 6, n), rng.choice(4, n, p=(0.7, 0.2, 0.08, 0.02))
    x[:, 12:14] = rng.random((n, 2)) < (0.35, 0.02)
    x[:, 14] = rng.poisson(1.2, n)
    x[rng.random(n) < 0.04, 5] = np.nan
    matrix = np.column_stack(codes).astype(np.int32)
    if fault:
        fault(x, matrix)
    production, experimental = _attributions(x, 1.0), _attributions(x, 1.3)
    roles = {
        "production": production,
        "experimental": experimental,
        "difference": experimental - production,
        "input": x,
    }
    return Requests({r: v.astype(np.float32) for r, v in roles.items()}, matrix)


def _attributions(x: np.ndarray, scale: float) -> np.ndarray:
    """Steps, as trees make them, and one interaction: what `count` adds depends on `income`."""
    centred = np.nan_to_num((np.where(np.arange(15) < 2, np.log(np.abs(x) + 1e-9), x) - _CENTRE) / _SPREAD)
    weights = np.array([0.8, 0.5, *np.linspace(0.4, 0.1, 8), 0.3, 0.3, 0.25, 0.25, 0.3])
    phi = weights * np.round(np.clip(centred, -2, 2) * 6 * scale) / 6
    phi[:, 14] *= 1 + (centred[:, 0] > 0)
    return phi


_CENTRE = np.array([10.6, 9.0, *np.zeros(8), 2.5, 0.4, 0.35, 0.02, 1.2])
_SPREAD = np.array([0.5, 0.6, *np.ones(8), 1.7, 0.7, 0.48, 0.14, 1.1])


class Stream:
    """The reference, and what it says about later days."""

    def __init__(self) -> None:
        days = [_requests(i) for i in range(REFERENCE_DAYS)]
        self.edges: dict[str, tuple[Edges, ...]] = {}
        for role in days[0].values:
            sketch = EdgeSketch(FEATURES)
            for day in days:
                sketch.add(day.values[role])
            self.edges[role] = sketch.edges(20)
        levels = {"level_0": 6, "level_1": 4, "flag_0": 2, "flag_1": 2}
        self.edges["input"] = tuple(
            category_edges(e.feature, levels[e.feature]) if e.feature in levels else e for e in self.edges["input"]
        )
        self.days = [self.blocks(day) for day in days]
        self.reference = {role: reduce(add_blocks, [d[role] for d in self.days]) for role in self.edges}
        budget = DRIFT.alarm_budget
        self.calibration = calibrate(
            {role: _counts([d[role] for d in self.days]) for role in self.edges},
            windows_days=DRIFT.windows_days,
            alarm_rate=budget.alarms / budget.per_days,
            min_effective_rows=DRIFT.min_effective_rows,
            rng=np.random.default_rng(0),
        )

    def blocks(self, requests: Requests) -> dict[str, HistogramBlock]:
        result = {}
        for role, edges in self.edges.items():
            result[role] = empty_block(SEGMENTS, edges)
            accumulate(result[role], edges, requests.values[role], np.ones(len(requests.codes)), requests.codes)
        return result

    def findings(
        self, days: int, fault: Fault | None = None, fault_from: int = 0, fault_days: int = 1_000
    ) -> dict[date, DayFindings]:
        """Findings of the days after the reference; the fault lies in `fault_days` of them from `fault_from` (0) on."""
        history = list(self.days)
        found = {}
        for i in range(REFERENCE_DAYS, REFERENCE_DAYS + days):
            faulty = fault_from <= i - REFERENCE_DAYS < fault_from + fault_days
            history.append(self.blocks(_requests(i, fault if faulty else None)))
            day = FIRST + timedelta(days=i)
            found[day] = daily_findings(day, self.rows(history), None, DRIFT)
        return found

    def rows(self, history: Sequence[dict[str, HistogramBlock]]) -> dict[str, np.ndarray]:
        parts: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for window in DRIFT.windows_days:
            days = history[-window:]
            share = _day_share([blocks["production"] for blocks in days])
            for role, edges in self.edges.items():
                of = self.calibration.dispersions[role, window]
                parts[role, window] = score_blocks(
                    self.reference[role],
                    reduce(add_blocks, [blocks[role] for blocks in days]),
                    edges,
                    role=role,
                    population="all",
                    window_days=window,
                    normal=Normal(of, share, self.calibration.day_share_reference),
                )
            shares = (parts[r, window]["importance_share"] for r in MODEL_ROLES)
            parts["input", window]["importance_share"] = np.fmax(*shares)
        columns = {name: np.concatenate([p[name] for p in parts.values()]) for name in parts["input", 1]}
        return columns | grade(columns, DRIFT, self.calibration.threshold)


def _counts(days: Sequence[HistogramBlock]) -> DailyCounts:
    weight = np.stack([b.weight for b in days]).astype(np.float32)
    total, squares = (
        np.stack([a[:, 0].sum(axis=1) for a in arrays])
        for arrays in (
            [b.weight for b in days],
            [b.weight_squared for b in days],
        )
    )
    return DailyCounts(weight, total, squares, np.ones(weight.shape[1:3], dtype=bool))


def _day_share(days: Sequence[HistogramBlock]) -> np.ndarray:
    n = np.stack([effective_rows(b.weight[:, 0], b.weight_squared[:, 0]) for b in days])
    return np.asarray((n**2).sum(axis=0) / n.sum(axis=0) ** 2)


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream()


def _alerts(findings: dict[date, DayFindings]) -> list[Alert]:
    return fold_findings(findings, max(findings), DRIFT, REFERENCE)


def _recommended(findings: dict[date, DayFindings]) -> list[Recommendation]:
    return recommend(_alerts(findings), max(findings), RemediationConfig(), {}, float("nan"))


def _unit_error(x: np.ndarray, codes: np.ndarray) -> None:
    x[codes[:, 1] == SEGMENTS.index("channel=3"), 0] /= 1_000


def _younger(x: np.ndarray, codes: np.ndarray) -> None:
    """Moved by one deviation, and cut off where the reference ends: nothing lies outside."""
    inside = codes[:, 2] == SEGMENTS.index("region=1")
    x[inside, 2] = np.clip(x[inside, 2] - 1, -3, 3)


@pytest.mark.slow
def test_sixty_quiet_days_have_no_alert(stream: Stream) -> None:
    findings = stream.findings(60)
    opened = {(a.fingerprint, a.opened_on) for day in findings for a in fold_findings(findings, day, DRIFT, REFERENCE)}
    assert opened == set()
    # Single days over a floor are what persistence is for; here there are none to filter either.
    assert sum(len(f.findings) for f in findings.values()) <= 1
    assert all(sum(map(len, f.judged.values())) == 4 * len(SEGMENTS) * len(FEATURES) for f in findings.values())


def test_a_unit_error_in_one_channel(stream: Stream) -> None:
    findings = stream.findings(5, _unit_error, fault_from=2)
    alerts = _alerts(findings)
    assert {(a.role, a.feature, a.segment, a.cause) for a in alerts} == {
        (role, "income", "channel=3", "input_fault") for role in ("production", "experimental", "difference")
    }
    assert {a.first_exceeded_on for a in alerts} == {REFERENCE[-1] + timedelta(days=3)}
    assert {a.opened_on for a in alerts} == {REFERENCE[-1] + timedelta(days=3)}
    production = next(a for a in alerts if a.role == "production")
    assert production.severity == "critical"
    assert "count" in production.moved_with
    assert (
        "of its values lie outside the reference range (reference 0 %): the input looks broken." in production.sentence
    )
    (action,) = _recommended(findings)
    assert (action.action, action.focus_features, action.focus_segments) == (
        "investigate_upstream",
        ("income",),
        ("channel=3",),
    )


def test_a_population_that_moved_in_one_region(stream: Stream) -> None:
    findings = stream.findings(4, _younger)
    alerts = [a for a in _alerts(findings) if a.role != "difference"]
    assert {(a.role, a.feature, a.segment, a.cause) for a in alerts} == {
        (role, "number_0", "region=1", "population_moved") for role in ("production", "experimental")
    }
    actions = _recommended(findings)
    assert {(a.action, a.target) for a in actions} == {("retrain", "production"), ("retrain", "experimental")}
    assert {a.focus_segments for a in actions} == {("region=1",)}


def test_both_faults_at_once_are_told_apart(stream: Stream) -> None:
    def both(x: np.ndarray, codes: np.ndarray) -> None:
        _unit_error(x, codes)
        _younger(x, codes)

    findings = stream.findings(3, both)
    found = {(a.feature, a.segment, a.cause) for a in _alerts(findings) if a.role == "production"}
    assert found == {("income", "channel=3", "input_fault"), ("number_0", "region=1", "population_moved")}
    actions = {a.action: a for a in _recommended(findings)}
    assert set(actions) == {"investigate_upstream", "retrain"}
    assert actions["retrain"].focus_features == ("number_0",)


def test_an_input_stuck_at_one_value(stream: Stream) -> None:
    def stuck(x: np.ndarray, codes: np.ndarray) -> None:
        x[codes[:, 3] == SEGMENTS.index("tier=1"), 3] = 0.3

    alerts = _alerts(stream.findings(3, stuck))
    assert {(a.feature, a.segment, a.cause) for a in alerts if a.role == "production"} == {
        ("number_1", "tier=1", "input_fault")
    }
    assert "one single cell" in next(a.sentence for a in alerts if a.role == "production")


@pytest.mark.parametrize("fault", [_unit_error, _younger])
def test_a_repaired_fault_is_resolved_although_longer_windows_remember_it(stream: Stream, fault: Fault) -> None:
    findings = stream.findings(9, fault, fault_days=3)
    days = sorted(findings)
    remembered = {f.window_days for d in days[3:] for f in findings[d].findings}
    assert 7 in remembered  # the week still shows it after the repair
    states = [{a.state for a in fold_findings(findings, d, DRIFT, REFERENCE)} for d in days]
    assert states == [{"open"}, *[{"ongoing"}] * 4, *[{"resolved"}] * 4]
