"""Names, columns, types and units of every table in the lake.

Belongs here: the schema as data. Does not belong here: paths, reading, writing, SQL.

`monitor` and `date` are part of each partition's path (`<table>/monitor=<name>/date=<YYYY-MM-DD>/part-0.parquet`)
and are not repeated inside the file.
"""

from dataclasses import dataclass

import polars as pl

UTC = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Column:
    """One column: polars type and what it holds, with its unit."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str


@dataclass(frozen=True)
class Table:
    """One table. `open_columns`: further columns follow per monitor (features, context, attributions)."""

    name: str
    description: str
    columns: tuple[Column, ...]
    open_columns: str = ""

    @property
    def schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        return {c.name: c.dtype for c in self.columns}


def _table(
    name: str, description: str, *columns: tuple[str, pl.DataType | type[pl.DataType], str], more: str = ""
) -> Table:
    return Table(name, description, tuple(Column(*c) for c in columns), more)


REPLAY_LOG = _table(
    "replay_log",
    "One row per request that was replayed through both models.",
    ("request_id", pl.String(), "identifier; unique within the day"),
    ("requested_at", UTC, "time of the request, UTC"),
    ("production_output", pl.Float64(), "output of the production model, in output units (probability or value)"),
    ("experimental_output", pl.Float64(), "output of the experimental model, in output units"),
    ("label", pl.Float64(), "truth where the log already knows it, else null"),
    ("production_latency_ms", pl.Float64(), "time the production model took, milliseconds; null where not logged"),
    ("experimental_latency_ms", pl.Float64(), "time the experimental model took, milliseconds; null where not logged"),
    more="features (numeric Float32, categorical String, boolean Boolean), then context columns (String)",
)
QUARANTINE = _table(
    "quarantine",
    "Input rows that could not be used, whole, with the reason.",
    ("source_file", pl.String(), "URI of the file"),
    ("row_number", pl.Int64(), "1-based position of the row in that file, header not counted"),
    ("reason", pl.String(), "why the row was not used"),
    ("row_json", pl.String(), "the row as it was read: a JSON object, or the raw line where it could not be parsed"),
)
LABEL_QUARANTINE = Table(
    "label_quarantine",
    "Label rows that could not be used, whole, with the reason.",
    QUARANTINE.columns,
)
LABELS = _table(
    "labels",
    "Labels by the day on which they arrived.",
    ("request_id", pl.String(), "request the label belongs to"),
    ("label", pl.Float64(), "the truth"),
)
DIVERGENCE_SET = _table(
    "divergence_set",
    "Requests chosen to be explained, in the order of the replay log.",
    ("row_index", pl.UInt32(), "0-based position of the request in the day's replay_log partition"),
    ("request_id", pl.String(), "identifier"),
    ("delta", pl.Float64(), "experimental minus production output, output units"),
    ("is_divergent", pl.Boolean(), "one of the configured kinds of divergence applies"),
    ("divergence_kind", pl.String(), "none, magnitude, decision_flip, or magnitude+decision_flip"),
    ("inclusion_probability", pl.Float64(), "probability with which the request was chosen (π)"),
)


def _attributions(name: str) -> Table:
    return _table(
        name,
        "SHAP values of one model for the requests of the divergence set, in the same order.",
        ("request_id", pl.String(), "identifier"),
        ("role", pl.String(), "production or experimental"),
        ("model_version", pl.String(), "first 12 hex digits of the artifact's SHA-256"),
        ("base_value", pl.Float64(), "expected margin, margin units"),
        ("margin", pl.Float64(), "the model's own raw prediction, margin units"),
        more="`phi_<feature>` per feature, Float32, margin units",
    )


PRODUCTION_ATTRIBUTIONS = _attributions("production_attributions")
EXPERIMENTAL_ATTRIBUTIONS = _attributions("experimental_attributions")

EXPLANATION_QUALITY = _table(
    "explanation_quality",
    "How well a day was explained: service levels per model role, coverage and errors also per segment.",
    ("role", pl.String(), "production, or experimental"),
    ("segment", pl.String(), "overall, or context=value (coverage and error_rate only)"),
    ("measure", pl.String(), "coverage, error_rate, median_ms, … (see stats.explanation_quality.MEASURES)"),
    ("unit", pl.String(), "unit of the value"),
    ("value", pl.Float64(), "the measure; null where the day has nothing to measure it on"),
    ("row_count", pl.Int64(), "requests behind the value"),
)

_HISTOGRAM_COLUMNS: tuple[tuple[str, pl.DataType | type[pl.DataType], str], ...] = (
    ("role", pl.String(), "production, experimental, difference (δ), input (feature values), or output (predictions)"),
    ("population", pl.String(), "all, or divergent"),
    ("segment", pl.String(), "overall, or context=value"),
    ("feature", pl.String(), "feature; of role output: production_output, experimental_output, output_difference"),
    ("bin", pl.Int16(), "cell number (see records.Edges); -1 is the moments row"),
    ("row_count", pl.Float64(), "explained requests in the cell"),
    ("weight", pl.Float64(), "Σw, requests represented (w = 1/π)"),
    ("weight_squared", pl.Float64(), "Σw²"),
    ("phi_sum", pl.Float64(), "Σwφ, margin units (roles input and output: Σwx, units of the value)"),
    ("abs_sum", pl.Float64(), "moments row only: Σw|φ|"),
    ("squared_sum", pl.Float64(), "moments row only: Σwφ²"),
)
EXPLANATION_BACKGROUND = _table(
    "explanation_background",
    "Requests that stand for the absence of a feature, for explainers that need such. Not partitioned by day.",
    ("request_id", pl.String(), "identifier"),
    ("requested_on", pl.Date(), "day of the replay log it was drawn from"),
    more="features, with the types of the replay log",
)
ATTRIBUTION_HISTOGRAMS = _table(
    "attribution_histograms",
    "Daily histograms over the reference's cells; empty cells are left out.",
    *_HISTOGRAM_COLUMNS,
)
REFERENCE_PROFILE = _table(
    "reference_profile",
    "What normal looks like: the cells' borders and the histograms of the reference days. Not partitioned by day.",
    *_HISTOGRAM_COLUMNS,
    ("cuts", pl.List(pl.Float64()), "moments row of population all, segment overall only: the cells' borders"),
)
FEATURE_STATISTICS = _table(
    "feature_statistics",
    "What each feature looked like on the day, read off its histogram: all explained requests, weighted by 1/π.",
    ("role", pl.String(), "production, experimental, difference, input, or output (see attribution_histograms)"),
    ("segment", pl.String(), "overall, or context=value; one without requests on the day has no rows"),
    ("feature", pl.String(), "feature"),
    ("row_count", pl.Int64(), "explained requests"),
    ("n_effective", pl.Float64(), "(Σw)²/Σw²"),
    ("mean", pl.Float64(), "mean of the values that are there, their units; null for a categorical input"),
    ("std", pl.Float64(), "standard deviation of the same values"),
    ("mean_absolute", pl.Float64(), "mean |value|: of an attribution its importance, margin units"),
    *(
        (
            f"percentile_{p:02d}",
            pl.Float64(),
            f"{p} % lie at or below it; null where that is beyond the reference's range",
        )
        for p in (1, 5, 25, 50, 75, 95, 99)
    ),
    ("missing_share", pl.Float64(), "share of null, 0–1; of an attribution: requests without an explanation"),
    ("outside_share", pl.Float64(), "share below or above the reference's range, 0–1; null for a categorical input"),
    ("unseen_share", pl.Float64(), "share of levels that the model does not know, 0–1; categorical inputs only"),
)
DRIFT_SCORES = _table(
    "drift_scores",
    "How far each feature's histogram moved from the reference, per role, population, segment and window.",
    ("role", pl.String(), "production, experimental, difference, input, or output"),
    ("population", pl.String(), "all, or divergent (described in the shortest window, never judged)"),
    ("segment", pl.String(), "overall, or context=value"),
    ("feature", pl.String(), "feature (of role output: see attribution_histograms), or * for all together"),
    ("window_days", pl.Int16(), "days in the window, ending on this day"),
    ("row_count", pl.Int64(), "explained requests in the window"),
    ("n_effective", pl.Float64(), "(Σw)²/Σw² of the window"),
    ("n_effective_reference", pl.Float64(), "(Σw)²/Σw² of the reference"),
    ("psi_nats", pl.Float64(), "population stability index, nats"),
    ("psi_corrected_nats", pl.Float64(), "psi_nats minus its mean without drift, nats"),
    ("psi_complement_nats", pl.Float64(), "corrected PSI of everybody outside the segment, nats; null for overall"),
    ("jensen_shannon", pl.Float64(), "Jensen–Shannon distance, 0–1"),
    ("kullback_leibler_bits", pl.Float64(), "Kullback–Leibler divergence, bits"),
    ("kolmogorov_smirnov", pl.Float64(), "largest difference of the distribution functions at the borders, 0–1"),
    ("wasserstein", pl.Float64(), "W₁ between cell means, margin units (roles input and output: units of the value)"),
    ("hellinger", pl.Float64(), "Hellinger distance, 0–1"),
    ("l_infinity", pl.Float64(), "largest difference of a cell's share, 0–1"),
    ("importance", pl.Float64(), "mean |φ| in the window, margin units (roles input and output: mean value)"),
    ("importance_reference", pl.Float64(), "mean |φ| in the reference, margin units"),
    ("importance_ratio", pl.Float64(), "importance / importance_reference"),
    ("importance_share", pl.Float64(), "share of the feature in Σ mean |φ|, the larger of window and reference, 0–1"),
    ("missing_share", pl.Float64(), "share of null in the window, 0–1"),
    ("missing_share_reference", pl.Float64(), "share of null in the reference, 0–1"),
    ("outside_share", pl.Float64(), "share below or above the reference's range; an unseen category counts, 0–1"),
    ("outside_share_reference", pl.Float64(), "the same in the reference, 0–1"),
    ("is_constant", pl.Boolean(), "stuck: one single cell or value holds the window where the reference varied"),
    ("ndcg", pl.Float64(), "ranking agreement of mean |φ| with the reference, 0–1; on the row of feature * only"),
    ("evidence", pl.Float64(), "−log10 of the chance of such a window when nothing drifts; null where not judged"),
    ("threshold", pl.Float64(), "evidence from which the alarm budget allows an alarm"),
    ("dispersion", pl.Float64(), "by how much days of the reference vary beyond chance, at this window's size, ratio"),
    ("effect", pl.Float64(), "the metric that effect floors are compared with"),
    ("effect_metric", pl.String(), "which metric that is: a column of this table"),
    ("reference_hash", pl.String(), "identity of the reference profile that the window was compared with"),
    ("severity", pl.String(), "insufficient, none, noted, warning, critical"),
    ("rule", pl.String(), "which rule decided, in words"),
)
DRIFT_CALIBRATION = _table(
    "drift_calibration",
    "How much the days of the reference differ when nothing is wrong; the alarm threshold that follows is shown by "
    "`drift_scores.threshold`. Not partitioned by day.",
    ("role", pl.String(), "production, experimental, difference, input, or output"),
    ("segment", pl.String(), "overall, or context=value"),
    ("feature", pl.String(), "feature"),
    ("window_days", pl.Int16(), "length of the window, days"),
    ("factor", pl.Float64(), "mean of X²/f over the reference's own windows, at least 1"),
    ("standard_error", pl.Float64(), "of factor"),
    ("size", pl.Float64(), "mean size of these comparisons, effective requests (see stats.homogeneity)"),
    ("freedom_window", pl.Float64(), "degrees of freedom of a window's X²"),
    ("freedom_reference", pl.Float64(), "degrees of freedom with which factor is known"),
)
DIVERGENCE_SLICES = _table(
    "divergence_slices",
    "Rules that say where the two models differ most in the days up to this one, judged on held-out requests.",
    ("window_days", pl.Int16(), "days in the window, ending on this day"),
    ("rule", pl.String(), "where: conditions on features and context, in words"),
    ("conditions_json", pl.String(), "the same as a JSON list: column, at_least, below, in, not_in, missing"),
    ("support_share", pl.Float64(), "share of the requests for which the rule holds, 0–1"),
    ("mean_abs_delta", pl.Float64(), "mean |Δ| where the rule holds, output units"),
    ("mean_abs_delta_rest", pl.Float64(), "mean |Δ| of all other requests, output units"),
    ("lift", pl.Float64(), "mean_abs_delta / mean_abs_delta_rest"),
    ("flip_share", pl.Float64(), "share of decision flips where the rule holds, 0–1"),
    ("flip_share_rest", pl.Float64(), "share of decision flips among all other requests, 0–1"),
    ("mean_abs_delta_fit", pl.Float64(), "mean_abs_delta in the requests in which the rule was found, output units"),
    ("lift_fit", pl.Float64(), "lift in the requests in which the rule was found"),
    ("p_value", pl.Float64(), "one-sided Welch test of the held-out requests against all others, 0–1"),
    ("row_count", pl.Int64(), "held-out requests for which the rule holds: those behind every figure but *_fit"),
    ("row_count_fit", pl.Int64(), "requests for which the rule holds among those in which it was found"),
    ("confirmed", pl.Boolean(), "the held-out requests bear the rule out: lift and p-value pass"),
)
DRIFT_SLICES = _table(
    "drift_slices",
    "Rules that say where the drift of an attribution concentrates, for the features that drift on this day.",
    ("role", pl.String(), "production, or experimental"),
    ("feature", pl.String(), "feature whose attribution drifts"),
    ("window_days", pl.Int16(), "days in the window, ending on this day"),
    ("rule", pl.String(), "where: conditions on features and context, in words"),
    ("conditions_json", pl.String(), "the same as a JSON list: column, at_least, below, in, not_in, missing"),
    ("support_share", pl.Float64(), "share of the window's requests for which the rule holds, 0–1"),
    ("support_share_reference", pl.Float64(), "the same share in the reference, 0–1"),
    ("psi_corrected_nats", pl.Float64(), "corrected PSI where the rule holds, nats"),
    ("psi_rest_nats", pl.Float64(), "corrected PSI of all other requests, nats"),
    ("psi_corrected_fit_nats", pl.Float64(), "psi_corrected_nats in the requests in which the rule was found, nats"),
    ("p_value", pl.Float64(), "one-sided Welch test that the rule's requests moved more than the others, 0–1"),
    ("row_count", pl.Int64(), "held-out requests of the window for which the rule holds"),
    ("row_count_fit", pl.Int64(), "requests of the window for which it holds among those in which it was found"),
    ("row_count_reference", pl.Int64(), "held-out requests of the reference for which the rule holds"),
    ("confirmed_on", pl.String(), "what was held out of the window: days, or rows where it has one day"),
    ("confirmed", pl.Boolean(), "the held-out requests bear the rule out: PSI inside, outside and p-value pass"),
)
SLICE_REFERENCE = _table(
    "slice_reference",
    "A sample of the reference's explained requests, for drift within slices. Not partitioned by day.",
    ("request_id", pl.String(), "identifier"),
    ("requested_on", pl.Date(), "day of the replay log it was drawn from"),
    ("inclusion_probability", pl.Float64(), "probability with which the request was chosen to be explained (π)"),
    more="features and context as in the replay log, then `<role>_phi_<feature>`, Float32, margin units",
)
EXPLANATION_SHIFT = _table(
    "explanation_shift",
    "How well a classifier tells a window's attributions, all features together, from the reference's.",
    ("role", pl.String(), "production, experimental, or difference"),
    ("segment", pl.String(), "overall"),
    ("window_days", pl.Int16(), "days in the window, ending on this day"),
    ("day_count", pl.Int16(), "days of the window whose attributions are still stored"),
    ("row_count", pl.Int64(), "explained requests of the window that were compared: a bounded, seeded sample"),
    (
        "row_count_reference",
        pl.Int64(),
        "explained requests of the reference that were compared, the window's left out",
    ),
    ("auc", pl.Float64(), "cross-fitted AUC, 0–1; 0.5 where nothing differs"),
    ("p_value", pl.Float64(), "permutation p-value, one-sided, 0–1; takes requests as independent of one another"),
    (
        "auc_reference_quantile",
        pl.Float64(),
        "AUC that windows of the reference exceed as often as the alarm budget says",
    ),
    ("features", pl.List(pl.String()), "features, the largest absolute coefficient first"),
    ("coefficients", pl.List(pl.Float64()), "theirs, log-odds per standard deviation of φ"),
    ("verdict", pl.String(), "shifted, stable, or insufficient"),
    ("rule", pl.String(), "why, in words"),
)
EXPLANATION_SHIFT_SAMPLE = _table(
    "explanation_shift_sample",
    "A day's explained requests with the smallest seeded keys, by rising key.",
    ("request_id", pl.String(), "identifier"),
    ("weight", pl.Float64(), "1/π of the divergence set"),
    more="`phi_<role>_<feature>` per model role and feature, Float32, margin units",
)
EXPLANATION_SHIFT_REFERENCE = _table(
    "explanation_shift_reference",
    "A seeded sample of the reference days' attributions, which outlives them. Not partitioned by day.",
    ("requested_on", pl.Date(), "day of the request"),
    ("weight", pl.Float64(), "requests that the row stands for"),
    more="`phi_<role>_<feature>` per model role and feature, Float32, margin units",
)
RESIDUAL_HISTOGRAMS = _table(
    "residual_histograms",
    "Sums of residuals (truth minus output) over the cells of each input, for the day whose labels became complete.",
    ("role", pl.String(), "production, or experimental"),
    ("segment", pl.String(), "overall, or context=value"),
    ("feature", pl.String(), "feature over whose input cells the residuals are summed"),
    ("bin", pl.Int16(), "cell number of the feature's input edges; of feature *: 0…19, twentieths of the output"),
    ("label_count", pl.Float64(), "labelled requests in the cell"),
    ("residual_sum", pl.Float64(), "Σ(y − p), output units"),
    ("residual_squared_sum", pl.Float64(), "Σ(y − p)², output units squared"),
    ("label_sum", pl.Float64(), "Σy"),
    ("residual_abs_sum", pl.Float64(), "Σ|y − p|, output units"),
)
LABEL_CALIBRATION = Table(
    "label_calibration",
    "How much residuals of the reference's days differ when nothing is wrong; `label_scores.threshold` shows the alarm "
    "threshold that follows. Role: production, or experimental; feature `*`: the whole; sizes in labels. "
    "Not partitioned by day.",
    DRIFT_CALIBRATION.columns,
)
LABEL_SCORES = _table(
    "label_scores",
    "Whether the relation between features and the truth changed, from labels that had arrived by this day.",
    ("role", pl.String(), "production, or experimental"),
    ("segment", pl.String(), "overall, or context=value"),
    ("feature", pl.String(), "feature over whose cells residuals were compared, or * for the whole"),
    ("window_days", pl.Int16(), "request days in the window; it ends `labels.complete_after_days` before this day"),
    ("label_count", pl.Int64(), "labelled requests in the window"),
    ("residual_shift", pl.Float64(), "root mean square change of the mean residual over the cells, output units"),
    ("z_score", pl.Float64(), "standardised change of residuals, as if days were independent requests, normal units"),
    ("evidence", pl.Float64(), "−log10 of the chance of such a window when nothing changes; null where not known"),
    ("threshold", pl.Float64(), "evidence from which the alarm budget allows an alarm"),
    ("dispersion", pl.Float64(), "by how much days of the reference vary beyond chance, at this window's size, ratio"),
    ("metric", pl.String(), "auc, or mae"),
    ("metric_value", pl.Float64(), "metric in the window; on the row of feature * only"),
    ("metric_reference", pl.Float64(), "metric over the reference; on the row of feature * only"),
    ("reference_hash", pl.String(), "identity of the reference profile over whose cells residuals were summed"),
    ("severity", pl.String(), "insufficient, none, noted, warning, critical"),
    ("rule", pl.String(), "which rule decided, in words"),
)
ERROR_STREAM = _table(
    "error_stream",
    "Mean errors of consecutive labelled requests, for the day whose labels became complete. Kept for good.",
    ("role", pl.String(), "production, or experimental"),
    ("model_version", pl.String(), "first 12 hex digits of the artifact's SHA-256"),
    ("error", pl.String(), "brier (classifier: (y − p)²), or absolute_error (regression: |y − y'|)"),
    ("block_number", pl.Int16(), "0-based block of the day, in the order of requested_at; at most 50"),
    ("first_requested_at", UTC, "time of the block's first request, UTC"),
    ("label_count", pl.Int64(), "labelled requests in the block; at least 20 where the day has as many"),
    ("error_mean", pl.Float64(), "mean error of the block, 0–1 (brier) or in output units"),
)
CONCEPT_DRIFT = _table(
    "concept_drift",
    "Whether the error of a model changed for good, as of this day, by two stream detectors.",
    ("role", pl.String(), "production, or experimental"),
    ("detector", pl.String(), "adwin, or page_hinkley"),
    ("state", pl.String(), "stable, rising, falling (since the change that still stands), or insufficient"),
    ("detected_on", pl.Date(), "day on which the change was found; null where none stands"),
    ("changed_from", pl.Date(), "day of the first requests after the change, by the detector's estimate"),
    ("error_before", pl.Float64(), "mean error before the change; where none stands, in the reference"),
    ("error_after", pl.Float64(), "mean error from the change to this day; where none stands, since the reference"),
    ("error_reference", pl.Float64(), "mean error in the reference"),
    ("unit", pl.String(), "what the errors are, with their unit"),
    ("label_count", pl.Int64(), "labels behind it, from the first reference day to this day"),
    ("sentence", pl.String(), "the finding, as a sentence"),
)
VERSION_EFFECTS = _table(
    "version_effects",
    "What a new version of a model changed in its attributions, apart from what the day's requests changed.",
    ("role", pl.String(), "production, or experimental: those whose earlier version is configured"),
    ("feature", pl.String(), "feature"),
    ("data_effect_nats", pl.Float64(), "earlier version, day's against reference's requests: corrected PSI, nats"),
    ("model_effect_nats", pl.Float64(), "new against earlier version, day's requests: corrected PSI, nats"),
    ("total_effect_nats", pl.Float64(), "new version, day's requests, against earlier one, reference's requests, nats"),
    ("importance_before", pl.Float64(), "mean |φ| of the earlier version, reference's requests, margin units"),
    ("importance_old_model", pl.Float64(), "mean |φ| of the earlier version, day's requests, margin units"),
    ("importance_after", pl.Float64(), "mean |φ| of the new version, day's requests, margin units"),
    ("verdict", pl.String(), "which effects are there: data, model, both, none"),
    ("row_count", pl.Int64(), "explained requests of the day that were compared: a bounded, seeded sample"),
    ("row_count_reference", pl.Int64(), "explained requests of the reference that were compared"),
    ("previous_version", pl.String(), "first 12 hex digits of the earlier artifact's SHA-256"),
    ("model_version", pl.String(), "first 12 hex digits of the artifact's SHA-256"),
)
DRIFT_ALERTS = _table(
    "drift_alerts",
    "State of every alert as of this day.",
    ("fingerprint", pl.String(), "identity of the alert: role, feature, segment, cause"),
    ("state", pl.String(), "open (first day), ongoing, resolved"),
    ("severity", pl.String(), "noted, warning, critical"),
    ("cause", pl.String(), "input_fault, population_moved, use_changed, relation_changed"),
    ("role", pl.String(), "production, experimental, difference"),
    ("feature", pl.String(), "feature"),
    ("segment", pl.String(), "overall, or context=value"),
    ("window_days", pl.Int16(), "window in which it shows"),
    ("first_exceeded_on", pl.Date(), "first day over the floor; of relation_changed the day its labels were complete"),
    ("opened_on", pl.Date(), "day on which the alert opened"),
    ("last_seen_on", pl.Date(), "last day over the floor"),
    ("effect", pl.Float64(), "size of the effect on the last day it was seen, in effect_unit"),
    ("effect_unit", pl.String(), "unit of the effect"),
    ("sentence", pl.String(), "the finding, as a sentence"),
    ("moved_with", pl.List(pl.String()), "features whose attributions moved as a consequence"),
    ("effect_of", pl.String(), "what it came with: data, model (a new version), both; truth (relation_changed)"),
)
RECOMMENDATIONS = _table(
    "recommendations",
    "What to do as of this day, with the evidence.",
    ("recommendation_id", pl.String(), "identity: action, target, and the alerts that opened it"),
    ("action", pl.String(), "retrain, reduce_traffic, investigate_upstream, none"),
    ("target", pl.String(), "production, experimental, upstream, or -"),
    ("focus_features", pl.List(pl.String()), "features concerned"),
    ("focus_segments", pl.List(pl.String()), "segments concerned"),
    ("opened_on", pl.Date(), "day on which it was first recommended"),
    ("evidence", pl.String(), "why, as a sentence"),
    ("alert_fingerprints", pl.List(pl.String()), "the alerts behind it"),
    ("state", pl.String(), "open, or held (with the reason in the evidence)"),
)
MODEL_VERSIONS = _table(
    "model_versions",
    "Registered artifacts. Not partitioned by day; only grows.",
    ("registered_at", UTC, "time of registration, UTC"),
    ("role", pl.String(), "role the candidate is meant for"),
    ("sha256", pl.String(), "SHA-256 of the artifact"),
    ("artifact", pl.String(), "path of the artifact"),
    ("recommendation_id", pl.String(), "recommendation that asked for it"),
    ("trained_from", pl.Date(), "first day of the training rows"),
    ("trained_to", pl.Date(), "last day of the training rows"),
    ("tested_from", pl.Date(), "first day of the held-out rows"),
    ("tested_to", pl.Date(), "last day of the held-out rows"),
    ("train_rows", pl.Int64(), "rows trained on"),
    ("test_rows", pl.Int64(), "rows held out"),
    ("focus_segments", pl.List(pl.String()), "segments weighted up"),
    ("focus_features", pl.List(pl.String()), "features that drifted"),
    ("metric", pl.String(), "auc, or rmse"),
    ("candidate_metric", pl.Float64(), "metric of the candidate on the held-out rows"),
    ("incumbent_metric", pl.Float64(), "metric of the model in service on the same rows"),
    ("decision", pl.String(), "better, or not_better"),
    ("provenance", pl.String(), "hash of configuration, incumbent artifact and code version"),
)

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        REPLAY_LOG,
        QUARANTINE,
        LABELS,
        LABEL_QUARANTINE,
        DIVERGENCE_SET,
        PRODUCTION_ATTRIBUTIONS,
        EXPERIMENTAL_ATTRIBUTIONS,
        EXPLANATION_BACKGROUND,
        EXPLANATION_QUALITY,
        REFERENCE_PROFILE,
        ATTRIBUTION_HISTOGRAMS,
        FEATURE_STATISTICS,
        DRIFT_CALIBRATION,
        DRIFT_SCORES,
        EXPLANATION_SHIFT,
        EXPLANATION_SHIFT_SAMPLE,
        EXPLANATION_SHIFT_REFERENCE,
        DIVERGENCE_SLICES,
        DRIFT_SLICES,
        SLICE_REFERENCE,
        RESIDUAL_HISTOGRAMS,
        LABEL_CALIBRATION,
        LABEL_SCORES,
        ERROR_STREAM,
        CONCEPT_DRIFT,
        VERSION_EFFECTS,
        DRIFT_ALERTS,
        RECOMMENDATIONS,
        MODEL_VERSIONS,
    )
}
UNPARTITIONED = frozenset(
    (
        "explanation_background",
        "explanation_shift_reference",
        "reference_profile",
        "drift_calibration",
        "label_calibration",
        "slice_reference",
        "model_versions",
    )
)
PHI = "phi_"
"""Prefix of attribution columns."""
