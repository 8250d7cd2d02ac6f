"""Severities: every rule alone, in its order; the threshold of the day; floors on any metric; labels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from xai_assets.config import DriftConfig, EffectFloors
from xai_assets.decide.severity import effects, grade, grade_labels
from xai_assets.records import SEVERITIES, severity_rank
from xai_assets.stats.threshold import Threshold

DRIFT = DriftConfig()
WESTFALL_YOUNG = Threshold(6.0, "westfall_young", 1 / 30, 28)
BENJAMINI_HOCHBERG = Threshold(float("nan"), "benjamini_hochberg", 1 / 30, 13)
UNKNOWN = Threshold(float("nan"), "unknown", 1 / 30, 1)
NAN = float("nan")
ROW: dict[str, Any] = {
    "role": "production",
    "population": "all",
    "feature": "income",
    "window_days": 1,
    "n_effective": 5_000.0,
    "n_effective_reference": 100_000.0,
    "evidence": 20.0,
    "psi_corrected_nats": 0.3,
    "jensen_shannon": 0.2,
    "importance_ratio": 1.0,
    "importance_share": 0.2,
}


def _grade(
    *rows: dict[str, Any], drift: DriftConfig = DRIFT, threshold: Threshold = WESTFALL_YOUNG
) -> dict[str, list[Any]]:
    columns = {k: np.array([(ROW | r)[k] for r in rows], dtype=object) for k in ROW}
    return {name: values.tolist() for name, values in grade(columns, drift, threshold).items()}


@pytest.mark.parametrize(
    ("psi", "expected"),
    [(-0.01, "none"), (0.099, "none"), (0.1, "noted"), (0.25, "warning"), (0.5, "critical"), (9.0, "critical")],
)
def test_floors(psi: float, expected: str) -> None:
    assert _grade({"psi_corrected_nats": psi})["severity"] == [expected]


def test_the_evidence_decides_at_the_threshold_itself() -> None:
    found = _grade(*({"evidence": u} for u in (0.0, 5.999, 6.0, 300.0)))
    assert found["severity"] == ["none", "none", "warning", "warning"]
    assert found["threshold"] == [6.0] * 4


def test_each_window_has_a_threshold_of_its_own() -> None:
    threshold = Threshold(6.0, "westfall_young", 1 / 30, 28, by_window=((1, 6.0), (7, 9.0), (28, 4.0)))
    rows = [{"window_days": w, "evidence": u} for w in (1, 7, 28) for u in (5.0, 7.0, 9.0)]
    found = _grade(*rows, threshold=threshold)
    assert found["threshold"] == [6.0] * 3 + [9.0] * 3 + [4.0] * 3
    loud = [s == "warning" for s in found["severity"]]
    assert loud == [False, True, True, False, False, True, True, True, True]


RULES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "warning", "evidence over the threshold (Westfall–Young, 28 reference days), effect from 0.25"),
    ({"psi_corrected_nats": 0.05}, "none", "real, but the effect is below 0.1"),
    ({"psi_corrected_nats": NAN}, "none", "real, but the effect is below 0.1"),
    ({"evidence": 5.0}, "none", "evidence is below the alarm threshold (Westfall–Young, 28 reference days)"),
    ({"evidence": 5.0, "psi_corrected_nats": 0.05}, "none", "evidence and effect are below their limits"),
    ({"importance_share": 0.019}, "none", "less than 2.0% of Σ mean |φ|"),
    ({"importance_share": NAN}, "none", "less than 2.0% of Σ mean |φ|"),
    ({"role": "input", "importance_share": 0.01}, "none", "less than 2.0% of Σ mean |φ|"),
    ({"role": "difference", "importance_share": 0.01}, "none", "less than 2.0% of Σ mean |φ|"),
    ({"role": "output", "importance_share": NAN}, "warning", "evidence over the threshold"),
    ({"evidence": NAN}, "insufficient", "to know what is normal here"),
    ({"n_effective_reference": 29.0}, "insufficient", "fewer than 30 effective requests in the reference"),
    ({"n_effective": 29.9}, "insufficient", "fewer than 30 effective requests in the window"),
    ({"n_effective": 30.0, "n_effective_reference": 30.0}, "warning", "evidence over the threshold"),
    ({"population": "divergent"}, "none", "divergent requests are described, not judged"),
    ({"feature": "*", "psi_corrected_nats": NAN, "evidence": NAN}, "none", "for comparison only, never decides"),
]


@pytest.mark.parametrize(("changes", "severity", "words"), RULES, ids=[str(c) for c, *_ in RULES])
def test_one_field_at_a_time(changes: dict[str, Any], severity: str, words: str) -> None:
    found = _grade(changes)
    assert found["severity"] == [severity]
    assert words in found["rule"][0]


def test_of_several_reasons_the_first_is_given() -> None:
    """Each row is wrong in one more way than the next; what is said first is what would have to change first."""
    worst: dict[str, Any] = {
        "n_effective": 3.0,
        "n_effective_reference": 3.0,
        "feature": "*",
        "population": "divergent",
        "evidence": NAN,
        "importance_share": 0.0,
    }
    rows = [dict(list(worst.items())[i:]) for i in range(len(worst) + 1)]
    found = _grade(*rows)
    words = ["the window", "the reference", "never decides", "described", "normal here", "Σ mean", "over the threshold"]
    assert all(word in rule for word, rule in zip(words, found["rule"], strict=True))
    assert found["severity"] == ["insufficient", "insufficient", "none", "none", "insufficient", "none", "warning"]


def test_what_cannot_be_judged_has_no_threshold() -> None:
    found = _grade({}, {"feature": "*"}, {"population": "divergent"}, {"evidence": NAN}, {"n_effective": 1.0})
    np.testing.assert_array_equal(found["threshold"], [6.0, NAN, NAN, NAN, 6.0])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["production", "input", "output"]),
                "population": st.sampled_from(["all", "divergent"]),
                "feature": st.sampled_from(["income", "*"]),
                "n_effective": st.sampled_from([0.0, 30.0, 1e6]),
                "n_effective_reference": st.sampled_from([0.0, 30.0, 1e6]),
                "evidence": st.sampled_from([NAN, 0.0, 1.0, 3.0, 7.0, 300.0]),
                "psi_corrected_nats": st.sampled_from([NAN, -0.1, 0.2, 1.0]),
                "importance_share": st.sampled_from([NAN, 0.0, 0.02, 1.0]),
            }
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([WESTFALL_YOUNG, BENJAMINI_HOCHBERG, UNKNOWN]),
)
@settings(max_examples=80, deadline=None)
def test_an_alarm_has_both_evidence_and_effect(rows: list[dict[str, Any]], threshold: Threshold) -> None:
    found = _grade(*rows, threshold=threshold)
    for row, severity, limit in zip(rows, found["severity"], found["threshold"], strict=True):
        assert severity in SEVERITIES
        if severity_rank(severity) >= severity_rank("noted"):
            assert row["evidence"] >= limit
            assert row["psi_corrected_nats"] >= DRIFT.effect_floors.noted
            assert min(row["n_effective"], row["n_effective_reference"]) >= DRIFT.min_effective_rows
            assert (row["population"], row["feature"]) == ("all", "income")
            assert row["role"] == "output" or row["importance_share"] >= DRIFT.min_importance_share


def test_floors_and_limits_are_the_users() -> None:
    stricter = EffectFloors(0.4, 0.5, 0.6)
    drift = DriftConfig(effect_floors=stricter, min_effective_rows=10_000)
    assert _grade({}, drift=drift)["severity"] == ["insufficient"]
    assert _grade({}, drift=DriftConfig(effect_floors=stricter))["severity"] == ["none"]
    assert _grade({"importance_share": 0.01}, drift=DriftConfig(min_importance_share=0.005))["severity"] == ["warning"]


@pytest.mark.parametrize(
    "metric",
    [
        "psi_corrected_nats",
        "psi_nats",
        "jensen_shannon",
        "kullback_leibler_bits",
        "kolmogorov_smirnov",
        "wasserstein",
        "hellinger",
        "l_infinity",
    ],
)
def test_floors_are_of_the_metric_the_user_names(metric: Any) -> None:
    drift = DriftConfig(effect_floors=EffectFloors(0.05, 0.15, 0.25, metric))
    columns = {k: np.array([v] * 4, dtype=object) for k, v in (ROW | {"psi_corrected_nats": NAN}).items()}
    columns[metric] = np.array([0.04, 0.05, 0.2, 0.3])
    found = grade(columns, drift, WESTFALL_YOUNG)
    assert found["severity"].tolist() == ["none", "noted", "warning", "critical"]
    np.testing.assert_array_equal(found["effect"], columns[metric])
    assert set(found["effect_metric"]) == {metric}


def test_a_ratio_of_importance_counts_both_ways() -> None:
    drift = DriftConfig(effect_floors=EffectFloors(1.5, 2.0, 4.0, "importance_ratio"))
    ratios = [1.0, 1.4, 1 / 1.4, 1.5, 0.5, 2.0, 0.25, 4.0, 0.0, np.inf, NAN]
    found = _grade(*({"importance_ratio": r} for r in ratios), drift=drift)
    levels = ["none"] * 3 + ["noted"] + ["warning"] * 2 + ["critical"] * 4 + ["none"]
    assert found["severity"] == levels
    np.testing.assert_allclose(found["effect"], [1, 1.4, 1.4, 1.5, 2, 2, 4, 4, np.inf, np.inf, NAN])
    everything = {"importance_ratio": np.array(ratios)}
    np.testing.assert_array_equal(effects(everything, drift), found["effect"])


def test_few_reference_days_take_the_false_discovery_rate_over_all_rows_of_the_day() -> None:
    rng = np.random.default_rng(3)
    p = np.concatenate((rng.uniform(size=60), rng.uniform(size=6) * 1e-3))
    roles = ["production", "experimental", "input"]
    rows = [{"evidence": u, "role": roles[i % 3]} for i, u in enumerate(-np.log10(p))]
    found = _grade(*rows, threshold=BENJAMINI_HOCHBERG)
    discovered = false_discovery_control(p) <= 1 / 30
    assert 0 < discovered.sum() < 8
    assert [s == "warning" for s in found["severity"]] == discovered.tolist()
    (limit,) = set(found["threshold"])
    assert limit == min(-np.log10(p[discovered]))
    assert {r for r, x in zip(found["rule"], discovered, strict=True) if x} == {
        "evidence over the threshold (F distribution and Benjamini–Hochberg: only 13 reference days), effect from 0.25"
    }


def test_with_few_reference_days_more_rows_ask_for_more_evidence() -> None:
    row, quiet = {"evidence": 2.0}, {"evidence": 0.3}
    assert _grade(row, threshold=BENJAMINI_HOCHBERG)["severity"] == ["warning"]
    crowd = _grade(row, *[quiet] * 50, threshold=BENJAMINI_HOCHBERG)
    assert crowd["severity"] == ["none"] * 51
    assert crowd["threshold"] == pytest.approx([-np.log10(1 / 30 / 51)] * 51)
    assert "Benjamini–Hochberg: only 13 reference days" in crowd["rule"][0]


@pytest.mark.parametrize(
    "aside",
    [{"feature": "*"}, {"population": "divergent"}, {"n_effective": 3.0}, {"importance_share": 0.0}, {"evidence": NAN}],
    ids=str,
)
def test_rows_that_cannot_raise_an_alarm_do_not_raise_the_threshold(aside: dict[str, Any]) -> None:
    rows = [{"evidence": 0.3} | aside] * 50
    assert _grade({"evidence": 2.0}, *rows, threshold=BENJAMINI_HOCHBERG)["severity"][0] == "warning"


def test_one_reference_day_judges_nothing_and_says_so() -> None:
    found = _grade({}, {"evidence": NAN}, {"feature": "*"}, threshold=UNKNOWN)
    assert found["severity"] == ["insufficient", "insufficient", "none"]
    assert found["rule"][0] == "what is normal cannot be told from 1 reference day, 2 are needed"
    assert np.isnan(found["threshold"]).all()


def test_no_rows() -> None:
    for threshold in (WESTFALL_YOUNG, BENJAMINI_HOCHBERG, UNKNOWN):
        assert {len(v) for v in _grade(threshold=threshold).values()} == {0}


LABELS: dict[str, Any] = {
    "role": "production",
    "segment": "overall",
    "feature": "income",
    "window_days": 7,
    "label_count": 3_000,
    "residual_shift": 0.06,
    "evidence": 8.0,
    "metric": "auc",
    "metric_reference": NAN,
}


def _grade_labels(*rows: dict[str, Any], threshold: Threshold = WESTFALL_YOUNG) -> dict[str, list[Any]]:
    columns = {k: np.array([(LABELS | r)[k] for r in rows], dtype=object) for k in LABELS}
    return {name: values.tolist() for name, values in grade_labels(columns, DRIFT, threshold).items()}


def test_label_floors() -> None:
    shifts = [0.019, 0.02, 0.05, 0.10]
    found = _grade_labels(*({"residual_shift": s} for s in shifts))
    assert found["severity"] == ["none", "noted", "warning", "critical"]
    assert found["rule"][0] == "real, but residuals changed by less than 0.02"
    assert found["rule"][2] == (
        "evidence over the threshold (Westfall–Young, 28 reference days), residuals changed by 0.05 or more"
    )
    assert found["threshold"] == [6.0] * 4


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"label_count": 29}, "insufficient", "fewer than 30 labels in the window"),
        ({"label_count": 30}, "warning", "evidence over the threshold"),
        ({"evidence": 5.9}, "none", "evidence is below the alarm threshold"),
        ({"evidence": 6.0}, "warning", "evidence over the threshold"),
        ({"evidence": 0.3, "residual_shift": 0.0}, "none", "are below their limits"),
        ({"evidence": NAN}, "insufficient", "too few labels, or too few days of the reference"),
        ({"residual_shift": NAN, "evidence": NAN}, "insufficient", "too few labels per cell"),
        ({"feature": "*"}, "warning", "evidence over the threshold"),
    ],
)
def test_labels_one_field_at_a_time(changes: dict[str, Any], severity: str, words: str) -> None:
    found = _grade_labels(changes)
    assert found["severity"] == [severity]
    assert words in found["rule"][0]


def test_labels_with_few_reference_days() -> None:
    """Four rows at a rate of 1/30: one passes from −log10(1/120) = 2.08 on, as the largest; 1.9 alone does not."""
    three = [{"evidence": 0.1}] * 3
    assert _grade_labels({"evidence": 2.09}, *three, threshold=BENJAMINI_HOCHBERG)["severity"][0] == "warning"
    found = _grade_labels({"evidence": 1.9}, *three, threshold=BENJAMINI_HOCHBERG)
    assert found["severity"] == ["none"] * 4
    assert "Benjamini–Hochberg: only 13 reference days" in found["rule"][0]
    aside = {"evidence": NAN, "label_count": 3}
    assert _grade_labels({"evidence": 1.9}, aside, threshold=BENJAMINI_HOCHBERG)["severity"] == [
        "warning",
        "insufficient",
    ]
    nothing = _grade_labels(LABELS, threshold=UNKNOWN)
    assert nothing["severity"] == ["insufficient"]
    assert "cannot be told from 1 reference day" in nothing["rule"][0]


def test_labels_without_rows() -> None:
    assert {len(v) for v in _grade_labels().values()} == {0}


def test_floors_of_a_regression_are_relative_to_its_error_in_the_same_segment() -> None:
    rows = [
        {"metric": "mae", "residual_shift": 3.0},
        {"metric": "mae", "feature": "*", "residual_shift": 0.1, "metric_reference": 50.0},
        {"metric": "mae", "segment": "s=x", "residual_shift": 3.0},
        {"metric": "mae", "segment": "s=x", "feature": "*", "residual_shift": 0.1, "metric_reference": 20.0},
        {"metric": "mae", "segment": "s=y", "residual_shift": 3.0},
    ]
    found = _grade_labels(*rows)
    assert found["severity"] == ["warning", "none", "critical", "none", "none"]
    assert found["rule"][0].endswith("residuals changed by 0.05 × the reference's mean absolute error or more")
