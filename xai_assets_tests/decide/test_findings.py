"""One day's rows in, findings out: a planted state and its healthy twin, one field at a time."""

from datetime import date
from typing import Any

import numpy as np
import pytest

from xai_assets.config import DriftConfig, EffectFloors
from xai_assets.decide.causes import VersionFacts
from xai_assets.decide.findings import LABEL_COLUMNS, SCORE_COLUMNS, DayFindings, daily_findings
from xai_assets.errors import XaiAssetsError

DAY = date(2025, 2, 5)
DRIFT = DriftConfig()
SEGMENTS = ("overall", "channel=web", "channel=broker", "region=north", "region=south")
FEATURES = ("income", "age", "debt")
Key = tuple[str, str, str]  # role, feature, segment


def _rows(changes: dict[Key, dict[str, Any]], windows: tuple[int, ...] = (1, 7)) -> dict[str, list[Any]]:
    """Healthy rows of all roles, with the changed fields of some (in every window)."""
    rows = []
    for role in ("production", "experimental", "difference", "input"):
        for feature in FEATURES:
            for segment in SEGMENTS:
                for window in windows:
                    row = _healthy(role, feature, segment, window) | changes.get((role, feature, segment), {})
                    rows.append(row)
    return {c: [r[c] for r in rows] for c in SCORE_COLUMNS}


def _healthy(role: str, feature: str, segment: str, window: int) -> dict[str, Any]:
    return {
        "role": role,
        "population": "all",
        "segment": segment,
        "feature": feature,
        "window_days": window,
        "severity": "none",
        "evidence": 0.4,
        "threshold": 6.0,
        "n_effective": 1_000.0,
        "n_effective_reference": 50_000.0,
        "psi_corrected_nats": 0.0,
        "psi_complement_nats": None if segment == "overall" else 0.0,
        "importance": 0.4,
        "importance_reference": 0.4,
        "importance_share": None if role == "input" else 0.3,
        "missing_share": 0.0,
        "missing_share_reference": 0.0,
        "outside_share": 0.0,
        "outside_share_reference": 0.0,
        "is_constant": False,
    }


def _drift(role: str, feature: str, psi: float = 2.0, place: str = "channel=broker") -> dict[Key, dict[str, Any]]:
    """Drift confined to one segment; the segments of other contexts are its shadows."""
    context = place.split("=")[0]
    changes: dict[Key, dict[str, Any]] = {}
    for segment in SEGMENTS:
        if segment == place or place == "overall":
            size, rest = psi, 0.0 if place != "overall" else psi
        elif segment.split("=")[0] == context:
            size, rest = 0.0, psi
        else:
            size, rest = psi / 4, psi / 4
        severity = "critical" if size >= 0.5 else "none"
        rest_or_none = None if segment == "overall" else rest
        evidence = 30.0 * size
        changes[role, feature, segment] = {
            "psi_corrected_nats": size,
            "psi_complement_nats": rest_or_none,
            "severity": severity,
            "evidence": evidence,
        }
    return changes


def _with(changes: dict[Key, dict[str, Any]], **fields: Any) -> dict[Key, dict[str, Any]]:
    return {key: row | fields if row["severity"] != "none" else row for key, row in changes.items()}


def _find(changes: dict[Key, dict[str, Any]], **settings: Any) -> DayFindings:
    return daily_findings(DAY, _rows(changes, **settings), None, DRIFT)


def _summary(found: DayFindings) -> set[tuple[str, str, str, str]]:
    return {(f.role, f.feature, f.segment, f.cause) for f in found.findings}


def test_healthy_rows_give_no_findings_but_are_judged() -> None:
    found = _find({})
    assert found.findings == ()
    assert found.disturbances == ()
    assert ("production", "channel=web") in found.judged
    assert found.judged["production", "channel=web"] == set(FEATURES)
    assert found.labels_judged == {}


def test_a_broken_input_is_named_with_its_place() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    found = _find(_drift("production", "income") | inputs)
    assert _summary(found) == {("production", "income", "channel=broker", "input_fault")}
    (finding,) = found.findings
    assert finding.severity == "critical"
    assert finding.detail == (
        "corrected PSI 2.00 nats (evidence 60.0, alarm from 6.0), mean |φ| 0.4 → 0.4. "
        "96 % of its values lie outside the reference range (reference 0 %): the input looks broken."
    )
    assert finding.evidence == 60.0
    (disturbance,) = found.disturbances
    assert (disturbance.feature, disturbance.segment, disturbance.cause) == ("income", "channel=broker", "input_fault")


def test_a_moved_population() -> None:
    found = _find(_drift("production", "age", place="region=south") | _drift("input", "age", place="region=south"))
    assert _summary(found) == {("production", "age", "region=south", "population_moved")}


def test_without_a_moved_input_its_use_changed() -> None:
    found = _find(_drift("experimental", "age"))
    assert _summary(found) == {("experimental", "age", "channel=broker", "use_changed")}
    assert "Its own values did not move" in found.findings[0].detail


def test_consequences_of_a_broken_input_make_no_finding_of_their_own() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    drifting = _drift("production", "income") | _drift("production", "age", 0.6) | _drift("experimental", "debt", 0.7)
    found = _find(drifting | inputs)
    assert _summary(found) == {("production", "income", "channel=broker", "input_fault")}
    assert found.findings[0].moved_with == ("age", "debt")


def test_a_broken_input_stays_known_while_the_attributions_speak_for_it() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    (alone,) = _find(inputs).findings
    assert alone.role == "input"
    assert alone.detail.endswith("No model's attributions have moved so far.")
    found = _find(_drift("production", "income") | _drift("experimental", "income") | inputs)
    assert {f.role for f in found.findings} == {"production", "experimental"}
    (continued,) = found.continued
    assert (continued.role, continued.segment, continued.severity) == ("input", "channel=broker", "critical")
    assert continued.detail.endswith("Attributions of the production and experimental model moved with it.")


def test_a_season_that_hides_the_place_in_the_psi_does_not_hide_it_in_the_shares() -> None:
    """Everybody's values moved a little, which no evidence shows in the broken segment itself; only there are values
    outside of the range."""
    inputs = _drift("input", "income", place="region=north")
    inputs |= {
        ("input", "income", s): {"psi_corrected_nats": 0.8, "psi_complement_nats": 0.8, "severity": "none"}
        for s in ("overall", "channel=web", "channel=broker")
    }
    for segment, share in (("channel=broker", 0.9), ("region=north", 0.45), ("region=south", 0.45), ("overall", 0.45)):
        inputs["input", "income", segment]["outside_share"] = share
    (finding,) = _find(inputs).findings
    assert (finding.segment, finding.cause, finding.severity) == ("channel=broker", "input_fault", "critical")


def test_drift_elsewhere_is_no_consequence() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    found = _find(_drift("production", "income") | _drift("production", "age", place="region=south") | inputs)
    assert _summary(found) == {
        ("production", "income", "channel=broker", "input_fault"),
        ("production", "age", "region=south", "use_changed"),
    }


def test_the_place_of_a_broken_input_is_the_place_of_the_drift() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    everywhere = _drift("production", "income", place="overall")
    assert _summary(_find(everywhere | inputs)) == {("production", "income", "channel=broker", "input_fault")}


def test_the_shadow_of_a_population_elsewhere_is_not_this_place_s_cause() -> None:
    changes = _drift("difference", "age") | _drift("input", "age", place="region=south")
    assert _summary(_find(changes)) == {("difference", "age", "channel=broker", "use_changed")}


def test_input_drift_that_moves_no_attribution_is_immaterial() -> None:
    found = _find(_drift("input", "age"))
    assert found.findings == ()
    assert [d.cause for d in found.disturbances] == ["population_moved"]


@pytest.mark.parametrize("share, expected", [(0.3, {("input", "age", "channel=broker", "input_fault")}), (0.01, set())])
def test_a_broken_input_is_found_where_the_feature_matters(share: float, expected: set) -> None:
    changes = _with(_drift("input", "age"), missing_share=0.6)
    changes |= {(r, "age", s): {"importance_share": share} for r in ("production", "experimental") for s in SEGMENTS}
    assert _summary(_find(changes)) == expected


def test_the_shortest_window_with_enough_requests_is_judged() -> None:
    rows = _rows(_drift("production", "age"))
    for i, (segment, window) in enumerate(zip(rows["segment"], rows["window_days"], strict=True)):
        if segment == "channel=broker" and window == 1:
            rows["severity"][i] = "insufficient"
        elif window == 1:
            rows["severity"][i], rows["psi_corrected_nats"][i], rows["psi_complement_nats"][i] = "none", 0.0, 0.0
    (finding,) = daily_findings(DAY, rows, None, DRIFT).findings
    assert (finding.segment, finding.window_days) == ("channel=broker", 7)
    assert "over 7 days" in finding.detail


def _only_in(rows: dict[str, list[Any]], feature: str, *windows: int) -> dict[str, list[Any]]:
    """The same rows, healthy in all other windows of one feature."""
    for i, (name, window) in enumerate(zip(rows["feature"], rows["window_days"], strict=True)):
        if name == feature and window not in windows:
            healthy = _healthy(rows["role"][i], name, rows["segment"][i], window)
            for column in ("severity", "evidence", "psi_corrected_nats", "psi_complement_nats"):
                rows[column][i] = healthy[column]
    return rows


def test_a_small_lasting_drift_is_judged_in_the_window_that_shows_it() -> None:
    rows = _only_in(_rows(_drift("production", "age"), (1, 7, 28)), "age", 7, 28)
    (finding,) = daily_findings(DAY, rows, None, DRIFT).findings
    assert (finding.segment, finding.window_days, finding.effect) == ("channel=broker", 7, 2.0)
    assert finding.detail.startswith("corrected PSI 2.00 nats over 7 days (evidence 60.0, alarm from 6.0), ")


def test_each_feature_is_judged_in_a_window_of_its_own() -> None:
    drifting = _drift("production", "age") | _drift("production", "income", place="region=south")
    rows = _only_in(_only_in(_rows(drifting, (1, 7, 28)), "age", 28), "income", 1, 7)
    found = {f.feature: (f.segment, f.window_days) for f in daily_findings(DAY, rows, None, DRIFT).findings}
    assert found == {"age": ("channel=broker", 28), "income": ("region=south", 1)}


def test_all_segments_of_a_feature_are_judged_in_the_same_window() -> None:
    """The day shows one channel. What else the week shows of earlier days is not today's place."""
    rows = _rows(_drift("production", "age"))
    for i in range(len(rows["role"])):
        row = {c: rows[c][i] for c in ("role", "feature", "window_days")}
        if row == {"role": "production", "feature": "age", "window_days": 7}:
            rows["severity"][i], rows["psi_corrected_nats"][i], rows["psi_complement_nats"][i] = "critical", 3.0, 3.0
    (finding,) = daily_findings(DAY, rows, None, DRIFT).findings
    assert (finding.segment, finding.window_days, finding.effect) == ("channel=broker", 1, 2.0)
    assert "channel=web" not in finding.exceeding


def test_a_segment_too_small_for_the_window_is_judged_in_its_own() -> None:
    """`channel=broker` drifts by the day; `channel=web` has enough requests by the week only, and drifts there."""
    rows = _rows(_drift("production", "age"))
    for i, key in enumerate(zip(rows["role"], rows["feature"], rows["segment"], rows["window_days"], strict=True)):
        if key == ("production", "age", "channel=web", 1):
            rows["severity"][i] = "insufficient"
        elif key == ("production", "age", "channel=web", 7):
            rows["severity"][i] = "noted"
    (finding,) = daily_findings(DAY, rows, None, DRIFT).findings
    assert (finding.segment, finding.window_days) == ("channel=broker", 1)
    assert {"channel=broker", "channel=web"} <= set(finding.exceeding)


@pytest.mark.parametrize("metric", ["psi_corrected_nats", "importance_ratio", "jensen_shannon"])
def test_the_place_does_not_depend_on_the_metric_of_the_floors(metric: Any) -> None:
    """Floors of another metric are no corrected PSI: elsewhere it drifts by 1 nat, so it is no single channel."""
    changes = _drift("production", "age")
    for segment in SEGMENTS[1:]:
        changes["production", "age", segment] |= {
            "psi_corrected_nats": 1.5,
            "psi_complement_nats": 1.0,
            "severity": "critical",
        }
    noted = {"psi_corrected_nats": 0.1, "importance_ratio": 1.5, "jensen_shannon": 0.2}[metric]
    drift = DriftConfig(effect_floors=EffectFloors(noted, 2 * noted, 4 * noted, metric))
    (finding,) = daily_findings(DAY, _rows(changes), None, drift).findings
    assert finding.segment == "overall"


def test_what_is_insufficient_everywhere_is_not_judged() -> None:
    rows = _rows({})
    rows["severity"] = [
        "insufficient" if s == "region=south" else v for s, v in zip(rows["segment"], rows["severity"], strict=True)
    ]
    found = daily_findings(DAY, rows, None, DRIFT)
    assert ("production", "region=south") not in found.judged
    assert ("production", "region=north") in found.judged


def test_divergent_population_and_the_row_of_all_features_do_not_decide() -> None:
    rows = _rows(_drift("production", "age"))
    rows["population"] = ["divergent"] * len(rows["role"])
    assert daily_findings(DAY, rows, None, DRIFT) == DayFindings(DAY)
    rows = _rows(_drift("production", "age"))
    rows["feature"] = ["*"] * len(rows["role"])
    assert daily_findings(DAY, rows, None, DRIFT).findings == ()


def test_order_and_container_of_rows_do_not_matter() -> None:
    inputs = _with(_drift("input", "income"), outside_share=0.96)
    rows = _rows(_drift("production", "income") | _drift("production", "age", 0.6) | inputs)
    order = np.random.default_rng(0).permutation(len(rows["role"]))
    shuffled = {c: np.array(v, dtype=object)[order] for c, v in rows.items()}
    assert set(daily_findings(DAY, shuffled, None, DRIFT).findings) != set()
    for a, b in zip(
        sorted(daily_findings(DAY, shuffled, None, DRIFT).findings, key=lambda f: f.feature),
        sorted(daily_findings(DAY, rows, None, DRIFT).findings, key=lambda f: f.feature),
        strict=True,
    ):
        assert (a.role, a.feature, a.segment, a.cause, a.detail, a.moved_with) == (
            b.role,
            b.feature,
            b.segment,
            b.cause,
            b.detail,
            b.moved_with,
        )


def test_no_rows_at_all() -> None:
    assert daily_findings(DAY, None, None, DRIFT) == DayFindings(DAY)
    assert daily_findings(DAY, {c: [] for c in SCORE_COLUMNS}, {c: [] for c in LABEL_COLUMNS}, DRIFT) == DayFindings(
        DAY
    )


def test_a_missing_column_is_refused() -> None:
    rows = _rows({})
    del rows["missing_share"]
    with pytest.raises(XaiAssetsError, match="no missing_share"):
        daily_findings(DAY, rows, None, DRIFT)


def _labels(shifts: dict[tuple[str, str], float], evidence: float = 12.0) -> dict[str, list[Any]]:
    """Label rows of the production model: residual_shift by (feature, segment), 0 elsewhere."""
    rows = []
    for feature in (*FEATURES, "*"):
        for segment in SEGMENTS:
            shift = shifts.get((feature, segment), 0.0)
            rows.append(
                {
                    "role": "production",
                    "segment": segment,
                    "feature": feature,
                    "window_days": 1,
                    "severity": "critical" if shift >= 0.1 else "noted" if shift >= 0.02 else "none",
                    "label_count": 1_000,
                    "residual_shift": shift,
                    "evidence": evidence * shift / 0.1,
                    "threshold": 5.1,
                    "metric": "auc",
                    "metric_value": 0.7 if feature == "*" else None,
                    "metric_reference": 0.8 if feature == "*" else None,
                }
            )
    return {c: [r[c] for r in rows] for c in LABEL_COLUMNS}


def test_a_changed_relation_with_the_strongest_first() -> None:
    everywhere = {("age", s): 0.15 for s in SEGMENTS} | {("debt", s): 0.03 for s in SEGMENTS}
    found = daily_findings(DAY, None, _labels(everywhere), DRIFT)
    assert [(f.feature, f.segment, f.cause) for f in found.relations] == [
        ("age", "overall", "relation_changed"),
        ("debt", "overall", "relation_changed"),
    ]
    detail = "residuals changed by 0.15 (evidence 18.0, alarm from 5.1), AUC 0.8 → 0.7."
    assert found.relations[0].detail == detail
    assert found.labels_judged == {("production", s): {*FEATURES, "*"} for s in SEGMENTS}


def test_a_feature_that_cannot_be_compared_is_not_judged() -> None:
    rows = _labels({})
    of_age = [f == "age" for f in rows["feature"]]
    rows["severity"] = ["insufficient" if x else s for s, x in zip(rows["severity"], of_age, strict=True)]
    found = daily_findings(DAY, None, rows, DRIFT).labels_judged
    assert found == {("production", s): {"income", "debt", "*"} for s in SEGMENTS}


def test_the_level_of_all_is_named_only_where_no_feature_is() -> None:
    level = {("*", s): 0.12 for s in SEGMENTS}
    assert [f.feature for f in daily_findings(DAY, None, _labels(level), DRIFT).relations] == ["*"]
    both = level | {("age", s): 0.05 for s in SEGMENTS}
    assert [f.feature for f in daily_findings(DAY, None, _labels(both), DRIFT).relations] == ["age"]


def test_a_relation_changed_in_one_segment() -> None:
    shifts = {("age", "channel=broker"): 0.2, ("age", "overall"): 0.06, ("age", "region=north"): 0.06}
    shifts |= {("age", "region=south"): 0.06}
    (finding,) = daily_findings(DAY, None, _labels(shifts), DRIFT).relations
    assert finding.segment == "channel=broker"
    assert set(finding.exceeding) == {"overall", "channel=broker", "region=north", "region=south"}


def test_without_another_version_everything_came_with_the_data() -> None:
    found = _find(_drift("production", "income") | _drift("input", "income"))
    assert [f.effect_of for f in found.findings] == ["data"]
    assert "version" not in found.findings[0].detail


def test_a_new_version_is_told_where_it_moved_the_feature() -> None:
    rows = _rows(_drift("production", "income") | _drift("experimental", "income") | _drift("production", "age"))
    versions = {
        ("production", "income"): VersionFacts(0.02, 0.81, "model"),
        ("production", "age"): VersionFacts(0.02, 0.03, "none"),
    }
    found = daily_findings(DAY, rows, None, DRIFT, versions=versions)
    told = {(f.role, f.feature): f for f in found.findings}
    assert told["production", "income"].effect_of == "model"
    assert told["production", "income"].detail.endswith("0.81 nats on the same rows, 0.02 nats from the rows.")
    assert told["production", "age"].effect_of == "data", "what shows no effect of either came with the data"
    assert told["experimental", "income"].effect_of == "data", "another role has versions of its own"
    assert "version" not in told["production", "age"].detail + told["experimental", "income"].detail


@pytest.mark.parametrize(
    "verdicts, effect, end",
    [
        (("model",), "model", "the new version of the production model: 0.81 nats on the same rows, 0.02 nats from"),
        (("model", "none"), "model", "Most of it came with the new version of the production model: 0.81 nats on"),
        (("none", "model"), "model", "Most of it came with the new version of the experimental model: 0.81 nats on"),
        (("model", "model"), "model", "the new versions of both models: production 0.81 nats on the same rows, 0.02"),
        (("model", "data"), "both", "It came with the requests and with the new version of the production model: pro"),
        (("both", "none"), "both", "It came with the requests and with the new version of the production model: 0.81"),
        (("both", "both"), "both", "It came with the requests and with the new versions of both models: production"),
        (("data", "none"), "data", "It came with the requests, not with a new model version: 0.81 nats on the same"),
        (("none", "none"), "data", ""),
        ((), "data", ""),
    ],
)
def test_a_new_version_of_either_model_moves_their_difference(verdicts: tuple[str, ...], effect: str, end: str) -> None:
    roles = zip(("production", "experimental"), verdicts, strict=False)
    versions = {(role, "income"): VersionFacts(0.02, 0.81, verdict) for role, verdict in roles}
    versions["production", "age"] = VersionFacts(0.02, 0.81, "model")
    (finding,) = daily_findings(DAY, _rows(_drift("difference", "income")), None, DRIFT, versions=versions).findings
    assert (finding.role, finding.effect_of) == ("difference", effect)
    assert end in finding.detail
    assert ("version" in finding.detail) == bool(end)


def test_a_changed_relation_came_with_the_truth() -> None:
    found = daily_findings(DAY, None, _labels({("income", "overall"): 0.2}), DRIFT)
    assert {f.effect_of for f in found.relations} == {"truth"}


def test_unseen_categories_are_told_by_the_kind_of_the_feature() -> None:
    changes = _drift("production", "income") | _with(_drift("input", "income"), outside_share=0.4)
    words = {
        kind: daily_findings(DAY, _rows(changes), None, DRIFT, kinds={"income": kind}).findings[0].detail
        for kind in ("numeric", "categorical")
    }
    assert "40 % of its values lie outside the reference range" in words["numeric"]
    assert "40 % of its values are categories that the model does not know" in words["categorical"]
