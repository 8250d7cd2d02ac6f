import numpy as np
import pytest
from scipy.stats import chi2

from xai_assets.config import DriftConfig, EffectFloors
from xai_assets.decide.severity import grade, grade_labels, noise_limit

DRIFT = DriftConfig()
ROW = {
    "role": "production",
    "feature": "income",
    "n_effective": 5_000.0,
    "n_effective_reference": 100_000.0,
    "psi_corrected_nats": 0.3,
    "importance_share": 0.2,
    "cells_used": 21.0,
}


def _grade(drift: DriftConfig = DRIFT, **changes: object) -> tuple[str, str]:
    row = ROW | changes
    severity, rule = grade({k: np.array([v], dtype=object) for k, v in row.items()}, drift)
    return severity[0], rule[0]


@pytest.mark.parametrize(
    "psi, expected", [(0.099, "none"), (0.1, "noted"), (0.25, "warning"), (0.5, "critical"), (9.0, "critical")]
)
def test_floors(psi: float, expected: str) -> None:
    assert _grade(psi_corrected_nats=psi)[0] == expected


@pytest.mark.parametrize(
    "changes, severity, word",
    [
        ({}, "warning", "0.300 ≥ 0.25 nats"),
        ({"n_effective": 199.0}, "insufficient", "199 effective requests in the window, 200 are needed"),
        ({"n_effective_reference": 10.0}, "insufficient", "10 effective requests in the reference"),
        ({"n_effective": 0.0, "psi_corrected_nats": np.nan, "cells_used": 1}, "insufficient", "0 effective"),
        ({"importance_share": 0.01}, "none", "only 1.0% of Σ mean |φ|, below 2.0%"),
        ({"importance_share": np.nan}, "none", "only"),
        ({"role": "input", "importance_share": np.nan}, "warning", "0.300"),
        ({"role": "difference", "importance_share": 0.01}, "none", "only"),
        ({"n_effective": 200.0, "psi_corrected_nats": 0.15}, "none", "what chance reaches"),
        ({"feature": "*", "psi_corrected_nats": np.nan}, "none", "never decides"),
        ({"psi_corrected_nats": np.nan, "cells_used": 1.0}, "none", "below"),
    ],
)
def test_one_field_at_a_time(changes: dict, severity: str, word: str) -> None:
    found, rule = _grade(**changes)
    assert found == severity
    assert word in rule


def test_floors_and_limits_are_the_users() -> None:
    drift = DriftConfig(effect_floors=EffectFloors(0.4, 0.5, 0.6), min_effective_rows=10_000)
    assert _grade(drift)[0] == "insufficient"
    assert _grade(DriftConfig(effect_floors=EffectFloors(0.4, 0.5, 0.6)))[0] == "none"


@pytest.mark.parametrize("cells", [2, 3, 6, 21, 24])
def test_noise_limit_is_what_chance_exceeds_once_in_thirty_thousand(cells: int) -> None:
    limit = noise_limit(np.array([float(cells)]), np.array([1_000.0]), np.array([4_000.0]))[0]
    statistic = limit / (1 / 1_000 + 1 / 4_000) + cells - 1
    assert 1e-5 < chi2.sf(statistic, cells - 1) < 6e-5


def test_noise_limit_holds_in_simulation() -> None:
    from xai_assets.stats.drift import cells_used, psi_corrected

    rng = np.random.default_rng(5)
    shares = np.r_[np.full(10, 0.08), np.full(10, 0.02)]
    q, p = rng.multinomial(3_000, shares, 20_000), rng.multinomial(250, shares, 20_000)
    score = psi_corrected(q, p)
    limit = noise_limit(cells_used(q, p).astype(float), np.full(20_000, 250.0), np.full(20_000, 3_000.0))
    assert np.mean(score > limit) < 5e-4
    plain = 4 * np.sqrt(2 * 19) * (1 / 250 + 1 / 3_000)
    assert limit.mean() > plain


LABELS = {
    "role": "production",
    "segment": "overall",
    "feature": "income",
    "window_days": 7,
    "label_count": 3_000,
    "residual_shift": 0.06,
    "z_score": 8.0,
    "metric": "auc",
    "metric_reference": np.nan,
}


def _grade_labels(*rows: dict) -> tuple[list[str], list[str]]:
    columns = {k: np.array([(LABELS | r)[k] for r in rows], dtype=object) for k in LABELS}
    severity, rule = grade_labels(columns, DRIFT)
    return severity.tolist(), rule.tolist()


def test_label_floors() -> None:
    shifts = [0.019, 0.02, 0.05, 0.10]
    severity, rule = _grade_labels(*({"residual_shift": s} for s in shifts))
    assert severity == ["none", "noted", "warning", "critical"]
    assert rule[2] == "residuals changed by 0.05 ≥ 0.05 with z = 8.0"


def test_labels_one_field_at_a_time() -> None:
    severity, rule = _grade_labels(
        {"label_count": 199}, {"z_score": 4.4}, {"residual_shift": np.nan, "z_score": np.nan}, {"feature": "*"}
    )
    assert severity == ["insufficient", "none", "none", "warning"]
    assert "199 labels" in rule[0]
    assert "z = 4.4 is below 4.5" in rule[1]
    assert "too few labels per cell" in rule[2]


def test_floors_of_a_regression_are_relative_to_its_error_in_the_same_segment() -> None:
    rows = [
        {"metric": "mae", "residual_shift": 3.0},
        {"metric": "mae", "feature": "*", "residual_shift": 0.1, "metric_reference": 50.0},
        {"metric": "mae", "segment": "s=x", "residual_shift": 3.0},
        {"metric": "mae", "segment": "s=x", "feature": "*", "residual_shift": 0.1, "metric_reference": 20.0},
        {"metric": "mae", "segment": "s=y", "residual_shift": 3.0},
    ]
    severity, _ = _grade_labels(*rows)
    assert severity == ["warning", "none", "critical", "none", "none"]
