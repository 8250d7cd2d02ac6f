"""Rules in common use, each on the same days as this package.

Belongs here: Evidently's preset, fixed limits of PSI and NDCG, two-sample tests. Does not belong here: our own rule.
"""

import os
import warnings
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.detection.days import Day, Stream
from benchmarks.detection.streams import FEATURES, NAMES, NUMERIC, Array, Requests
from benchmarks.detection.verdicts import Verdict
from xai_assets.flow.evidently_view import SAMPLE_ROWS
from xai_assets.records import INPUT, MODEL_ROLES, OVERALL
from xai_assets.stats import drift

PSI_LIMIT, P_LIMIT, NDCG_LIMIT = 0.25, 0.05, 0.90


class Evidently:
    """`DataDriftPreset` on raw inputs as `flow.evidently_view` calls it, at most 5,000 rows a side."""

    any_column, dataset = "Evidently preset, any column", "Evidently preset, dataset drift"

    def __init__(self, stream: Stream) -> None:
        self._run = _evidently()
        self._reference = _sample(stream.reference_requests)

    def judge(self, day: Day, _: list[Day]) -> dict[str, Verdict]:
        count, scores = self._run(_sample(day.requests), self._reference)
        first = max(scores, key=lambda name: scores[name])
        return {
            self.any_column: Verdict(count["count"] > 0, first),
            self.dataset: Verdict(count["share"] >= 0.5, first),
        }


def _sample(requests: Requests) -> Any:
    frame = requests.frame.select(NAMES)
    frame = frame.sample(SAMPLE_ROWS, seed=0) if frame.height > SAMPLE_ROWS else frame
    return frame.cast({f.name: str for f in FEATURES if f.kind != "numeric"}).to_pandas()


def _evidently() -> Any:
    """Current and reference frame → drifted columns, and per column how far its score is beyond its threshold."""
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics.column_statistics import ValueDriftCalculation
        from evidently.presets import DataDriftPreset
    # Its figures and its page take four fifths of the time and change no number.
    ValueDriftCalculation._render = DataDriftPreset.render = lambda *_, **__: []

    definition = DataDefinition(
        numerical_columns=list(NUMERIC), categorical_columns=[n for n in NAMES if n not in NUMERIC]
    )

    def run(current: Any, reference: Any) -> tuple[dict[str, float], dict[str, float]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sets = [Dataset.from_pandas(frame, definition) for frame in (current, reference)]
            found = Report([DataDriftPreset()]).run(*sets).dict()["metrics"]
        scores = {m["config"]["column"]: _beyond(m) for m in found if "column" in m["config"]}
        return found[0]["value"], scores

    return run


def _beyond(metric: dict[str, Any]) -> float:
    """log10 of a distance over its threshold, or of the threshold over a p-value: above 0 is drift."""
    name, value = metric["metric_name"], max(float(metric["value"]), 1e-300)
    threshold = float(name.rsplit("threshold=", 1)[1].rstrip(")"))
    ratio = threshold / value if "p_value" in name else value / threshold
    return float(np.log10(ratio))


class StabilityIndex:
    """PSI > 0.25 on daily histograms over the reference's cells, as it is commonly used: uncorrected."""

    attributions, segments, inputs = "PSI > 0.25, attributions", "PSI > 0.25, attr. × segments", "PSI > 0.25, inputs"

    def __init__(self, stream: Stream) -> None:
        self._profile = stream.profile

    def judge(self, day: Day, _: list[Day]) -> dict[str, Verdict]:
        of_models = np.fmax(*(self._psi(day, role) for role in MODEL_ROLES))
        overall = self._profile.segments.index(OVERALL)
        return {
            self.attributions: self._verdict(of_models[[overall]], ("",)),
            self.segments: self._verdict(of_models, self._profile.segments),
            self.inputs: self._verdict(self._psi(day, INPUT)[[overall]], ("",)),
        }

    def _psi(self, day: Day, role: str) -> Array:
        return drift.psi(self._profile.blocks[role, "all"].weight, day.blocks[role, "all"].weight)

    def _verdict(self, psi: Array, segments: tuple[str, ...]) -> Verdict:
        psi = np.nan_to_num(psi, nan=-1.0)
        segment, feature = np.unravel_index(int(np.argmax(psi)), psi.shape)
        return Verdict(bool(psi.max() > PSI_LIMIT), NAMES[int(feature)], segments[int(segment)])


class TwoSampleTests:
    """Kolmogorov–Smirnov on each numeric input, χ² on each other one; missing values left out, as is usual."""

    plain, corrected = "KS 0.05", "KS 0.05, Benjamini–Hochberg"

    def __init__(self, stream: Stream) -> None:
        frame = stream.reference_requests.values
        rows = np.random.default_rng(0).permutation(len(frame["age"]))[:50_000]
        self._reference = {name: _known(values[rows]) for name, values in frame.items()}

    def judge(self, day: Day, _: list[Day]) -> dict[str, Verdict]:
        p = np.array([self._p(name, _known(day.requests.values[name])) for name in NAMES])
        first = NAMES[int(np.argmin(p))]
        adjusted = stats.false_discovery_control(p)
        return {
            self.plain: Verdict(bool(p.min() < P_LIMIT), first),
            self.corrected: Verdict(bool(adjusted.min() < P_LIMIT), first),
        }

    def _p(self, name: str, values: Array) -> float:
        reference = self._reference[name]
        if len(values) == 0:
            return 1.0
        if name in NUMERIC:
            return float(stats.ks_2samp(reference, values, method="asymp").pvalue)
        levels = np.union1d(reference, values)
        table = [[np.count_nonzero(side == level) for level in levels] for side in (reference, values)]
        return float(stats.chi2_contingency(table).pvalue)


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]


class RankingLoss:
    """NDCG < 0.90 of the ranking by mean |φ|, either model. It names no feature; the largest change of one is taken."""

    name = "NDCG < 0.90"

    def __init__(self, stream: Stream) -> None:
        self._overall = stream.profile.segments.index(OVERALL)
        self._reference = {role: self._importance(stream.profile.blocks, role) for role in MODEL_ROLES}

    def judge(self, day: Day, _: list[Day]) -> dict[str, Verdict]:
        now = {role: self._importance(day.blocks, role) for role in MODEL_ROLES}
        worst = min(float(drift.ndcg(self._reference[r], now[r])) for r in MODEL_ROLES)
        moved = np.max([np.abs(now[r] - self._reference[r]) for r in MODEL_ROLES], axis=0)
        return {self.name: Verdict(worst < NDCG_LIMIT, NAMES[int(np.argmax(moved))])}

    def _importance(self, blocks: Any, role: str) -> Array:
        block = blocks[role, "all"]
        return block.abs_sum[self._overall] / block.weight[self._overall].sum(axis=1)
