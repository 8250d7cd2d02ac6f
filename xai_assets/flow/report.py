"""One self-contained HTML report of a monitor as of a day.

Belongs here: choosing which stored findings are told, in which order, and putting them on a page.
Does not belong here: drawing (see `plots`), Evidently's comparison (see `flow.evidently_view`), computing scores.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xai_assets.errors import LakeError
from xai_assets.flow.concept_drift import findings
from xai_assets.flow.decisions import Recommender
from xai_assets.flow.histograms import role_features
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import all_days, window_days
from xai_assets.flow.reference import check_day, comparable_days, load_profile
from xai_assets.flow.service_levels import judge_days, load_levels
from xai_assets.lake.histogram_rows import Blocks, frame_to_blocks
from xai_assets.lake.ingest_report import stored_report
from xai_assets.plots.palette import to_png
from xai_assets.records import (
    INPUT,
    MODEL_ROLES,
    OUTPUT,
    OVERALL,
    POPULATIONS,
    SEVERITIES,
    VALUE_ROLES,
    FeatureSpec,
    Float64,
)
from xai_assets.stats.divergence import DivergenceSummary, summarize
from xai_assets.stats.explanation_quality import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xai_assets.flow.histograms import Profile

INPUT_CAUSES = ("input_fault", "population_moved")
"""Causes that lie in the inputs, whichever model's attributions raised the alert."""
HEATMAP_DAYS = 90
MOST_FEATURES, MOST_HISTOGRAMS, MOST_ROWS = 20, 6, 20
ALERT_COLUMNS = ("severity", "state", "cause", "role", "feature", "segment", "opened_on", "last_seen_on", "sentence")
ADVICE_COLUMNS = ("action", "target", "focus_features", "focus_segments", "opened_on", "state", "evidence")
"""The last column of both is a sentence and gets a line of its own."""
SCORE_COLUMNS = (
    "role",
    "segment",
    "feature",
    "psi_corrected_nats",
    "importance_ratio",
    "missing_share",
    "outside_share",
    "severity",
)
STATISTICS_COLUMNS = (
    "role",
    "feature",
    "mean",
    "std",
    "percentile_05",
    "percentile_50",
    "percentile_95",
    "missing_share",
    "outside_share",
    "unseen_share",
)
DIVERGENCE_SLICE_COLUMNS = (
    "rule",
    "support_share",
    "mean_abs_delta",
    "mean_abs_delta_rest",
    "lift",
    "flip_share",
    "flip_share_rest",
)
DRIFT_SLICE_COLUMNS = ("role", "feature", "rule", "support_share", "psi_corrected_nats", "psi_rest_nats", "window_days")
SHIFT_COLUMNS = (
    "role",
    "window_days",
    "verdict",
    "auc",
    "auc_reference_quantile",
    "p_value",
    "row_count",
    "features",
    "rule",
)
SHIFT_FEATURES = 3
INTAKE_COLUMNS = ("date", "status", "rows_read", "rows_stored", "rows_duplicate", "rows_quarantined", "rows_other_days")


@dataclass(frozen=True)
class HtmlReport:
    """The page, and its first sentences for a terminal or a message."""

    day: date
    headlines: tuple[str, ...]
    html: str


@dataclass(frozen=True)
class _Facts:
    """Everything read from the lake once."""

    monitor: Monitor
    day: date
    window: int
    profile: "Profile"
    alerts: pl.DataFrame
    advice: pl.DataFrame
    scores: pl.DataFrame
    rates: dict[date, tuple[float, int]]
    reference_rate: float
    reasons: list[DivergenceSummary]


def build_report(monitor: Monitor, day: date | None = None, *, with_evidently: bool = True) -> HtmlReport:
    """The report as of a day, by default the last one that was judged.

    Raises
    ------
    LakeError
        The day, or any day, was not judged yet.
    ProvenanceError
        The day's histograms are over the cells of another reference than the stored one.
    """
    facts = _read(monitor, day)
    headlines = _headlines(facts)
    parts = [_text(headlines), _alerts(facts), _divergence(facts), *_heatmaps(facts), *_histograms(facts)]
    parts += [
        _largest(facts),
        *_explanation_shift(facts),
        *_concept_drift(facts),
        _slices(facts),
        _statistics(facts),
        *_service_levels(facts),
        _intake(facts),
        _models(facts),
    ]
    if with_evidently:
        from xai_assets.flow.evidently_view import raw_inputs_section

        parts.append(raw_inputs_section(monitor, window_days(facts.day, facts.window, monitor.config.first_date)))
    return HtmlReport(facts.day, tuple(headlines), _page(f"{monitor.name}, {facts.day}", parts))


def _read(monitor: Monitor, day: date | None) -> _Facts:
    lake, name, config = monitor.lake, monitor.name, monitor.config
    days = lake.days("recommendations", name)
    if not days or (day is not None and day not in days):
        raise LakeError(
            f"'{name}' was not judged on {day or 'any day'} yet",
            expected="a day with stored recommendations",
            found=f"{days[0]} … {days[-1]}" if days else "none",
            next_step=f"xai run {name} --from DAY --to DAY",
        )
    day = day or days[-1]
    windows = config.drift.windows_days
    window = 7 if 7 in windows else windows[len(windows) // 2]
    shown = all_days(max(config.first_date, day - timedelta(days=HEATMAP_DAYS - 1)), day)
    chosen = (
        (pl.col("window_days") == window) & (pl.col("population") == "all") & (pl.col("severity") != "insufficient")
    )
    rates, reference_rate = Recommender(monitor).divergence_rates(day)
    profile = load_profile(monitor)
    check_day(monitor, day, profile)
    return _Facts(
        monitor=monitor,
        day=day,
        window=window,
        profile=profile,
        alerts=lake.read_days("drift_alerts", name, shown),
        advice=lake.read("recommendations", name, day),
        scores=lake.read_days("drift_scores", name, shown, predicate=chosen),
        rates=rates,
        reference_rate=reference_rate,
        reasons=summarize(_blocks(monitor, profile, [day]), "divergent"),
    )


def _blocks(monitor: Monitor, profile: "Profile", days: Sequence[date]) -> Blocks:
    """Histograms summed over the stored days; those over the cells of another reference are left out."""
    comparable = comparable_days(monitor, days, profile)
    keys = ["role", "population", "segment", "feature", "bin"]
    rows = monitor.lake.read_days("attribution_histograms", monitor.name, comparable).drop("date")
    summed = rows.group_by(keys).agg(pl.all().sum())
    return frame_to_blocks(summed, profile.segments, profile.edges, POPULATIONS)


def _open_alerts(facts: _Facts) -> pl.DataFrame:
    return _worst_first(facts.alerts.filter((pl.col("date") == facts.day) & (pl.col("state") != "resolved")))


def _worst_first(alerts: pl.DataFrame) -> pl.DataFrame:
    """By severity, then by the day they opened: effects of different units cannot be ranked."""
    rank = pl.col("severity").replace_strict({s: i for i, s in enumerate(SEVERITIES)}, return_dtype=pl.Int64)
    return alerts.sort(rank, "opened_on", "feature", descending=[True, False, False], maintain_order=True)


def _headlines(facts: _Facts) -> list[str]:
    """The sentences that matter: alerts, what to do, how often the models differ and why."""
    alerts = _open_alerts(facts)
    lines = [
        f"{alerts.height} alerts are open on {facts.day}." if alerts.height else f"No alert is open on {facts.day}."
    ]
    lines += [f"{row['severity'].upper()}: {row['sentence']}" for row in alerts.head(5).iter_rows(named=True)]
    for row in facts.advice.filter(pl.col("action") != "none").iter_rows(named=True):
        focus = f"{', '.join(row['focus_features'])} in {', '.join(row['focus_segments']) or OVERALL}"
        lines.append(f"Recommended: {row['action'].replace('_', ' ')} ({row['target']}), focus on {focus}.")
    return [*lines, _rate_finding(facts), _reason_finding(facts)]


def _rate_finding(facts: _Facts) -> str:
    if facts.day not in facts.rates:
        return f"There were no requests on {facts.day}."
    rate = facts.rates[facts.day][0]
    return (
        f"The models diverge on {rate:.1%} of requests on {facts.day}; in the reference on {facts.reference_rate:.1%}."
    )


def _reason_finding(facts: _Facts) -> str:
    top = facts.reasons[0] if facts.reasons else None
    if top is None or not np.isfinite(top.difference_share):
        return f"No divergent request of {facts.day} was explained."
    return f"{top.feature} makes up {top.difference_share:.0%} of the models' difference on {facts.day}."


def _text(lines: Sequence[str]) -> str:
    first, *rest = (html.escape(line) for line in lines)
    return f"<p class='first'>{first}</p><ul>" + "".join(f"<li>{line}</li>" for line in rest) + "</ul>"


def _alerts(facts: _Facts) -> str:
    alerts = _worst_first(facts.alerts.filter(pl.col("date") == facts.day))
    advice = facts.advice.filter(pl.col("action") != "none")
    return _section(
        "Alerts and recommendations",
        _table(alerts.select(ALERT_COLUMNS), "No alert.", sentence_last=True),
        _table(advice.select(ADVICE_COLUMNS), "Nothing is recommended.", sentence_last=True),
    )


def _divergence(facts: _Facts) -> str:
    from xai_assets.plots.divergence import divergence_rate, divergence_reasons

    figures = []
    days = all_days(min(facts.rates, default=facts.day), facts.day)
    if facts.rates:
        reference = facts.monitor.config.reference
        figure = divergence_rate(
            days,
            np.array([facts.rates.get(d, (np.nan, 0))[0] for d in days]),
            reference_rate=facts.reference_rate,
            reference=(reference.start_date, reference.end_date),
            title=_rate_finding(facts),
        )
        figures.append(_image(figure, "divergence rate per day"))
    top = [r for r in facts.reasons[:MOST_FEATURES] if r.mean_abs_difference > 0]
    if top:
        figure = divergence_reasons(
            [r.feature + (f" ({r.usage})" if r.usage else "") for r in top],
            np.array([r.mean_abs_difference for r in top]),
            np.array([r.difference_share for r in top]),
            np.array([r.mean_difference for r in top]),
            title=_reason_finding(facts),
        )
        figures.append(_image(figure, "why the models differ"))
    return _section("How often, and why, the models differ", *figures)


def _heatmaps(facts: _Facts) -> list[str]:
    titles = {INPUT: "Drift of the inputs", OUTPUT: "Drift of the outputs"}
    titles |= {r: f"Drift of the {r} model's attributions" for r in MODEL_ROLES}
    return [_section(title, _heatmap(facts, role)) for role, title in titles.items()]


def _heatmap(facts: _Facts, role: str) -> str:
    from xai_assets.plots.heatmap import drift_heatmap

    rows = facts.scores.filter((pl.col("role") == role) & pl.col("psi_corrected_nats").is_not_null())
    largest = rows.group_by("feature", "date").agg(pl.col("psi_corrected_nats").max())
    if largest.is_empty():
        return "<p>No day has enough requests to be judged.</p>"
    of_role = pl.col("cause").is_in(INPUT_CAUSES) if role == INPUT else pl.col("role") == role
    alerts = facts.alerts.filter(of_role & (pl.col("state") != "resolved"))
    ranked = (
        largest.group_by("feature")
        .agg(pl.col("psi_corrected_nats").max())
        .sort(["psi_corrected_nats", "feature"], descending=[True, False])
    )
    features = ranked["feature"].head(MOST_FEATURES).to_list()
    features = [f for f in role_features(facts.monitor.config, role) if f in features]
    days = list(all_days(largest["date"].min(), facts.day))  # type: ignore[arg-type]
    figure = drift_heatmap(
        _grid(largest.select("feature", "date", "psi_corrected_nats").rows(), features, days),
        np.nan_to_num(_grid([(f, d, 1.0) for f, d in alerts.select("feature", "date").rows()], features, days)) > 0,
        features,
        days,
        title=_heatmap_finding(role, ranked, alerts),
        floors=facts.monitor.config.drift.effect_floors.nats,
    )
    note = f"Largest corrected PSI over all segments with enough requests, windows of {facts.window} days."
    hidden = ranked.height - len(features)
    return _image(figure, f"drift of {role}") + _note(
        note + (f" {hidden} features that moved less are left out." if hidden else "")
    )


def _heatmap_finding(role: str, ranked: pl.DataFrame, alerts: pl.DataFrame) -> str:
    alarmed = alerts.select("feature").unique().sort("feature")["feature"].to_list()
    if alarmed:
        more = f" and {len(alarmed) - 3} more" if len(alarmed) > 3 else ""
        return f"{role}: alerts on {', '.join(alarmed[:3])}{more}; the first opened on {min(alerts['opened_on'])}"
    feature, psi = ranked.row(0)
    return f"{role}: no alert; {feature} moved most, up to {psi:.2f} nats"


def _grid(cells: Sequence[tuple[Any, ...]], features: Sequence[str], days: Sequence[date]) -> Float64:
    """Values by (feature, day) as float64 [features, days], NaN where there is none."""
    row, column = {f: i for i, f in enumerate(features)}, {d: i for i, d in enumerate(days)}
    grid = np.full((len(features), len(days)), np.nan)
    for feature, day, value in cells:
        if feature in row and day in column:
            grid[row[feature], column[day]] = value
    return grid


def _histograms(facts: _Facts) -> list[str]:
    """Histograms behind the worst open alert of each feature, and of its values; else of what moved most."""
    chosen: dict[tuple[str, str, str, int], None] = {}
    alerts = _open_alerts(facts).filter(pl.col("effect_unit") == "nats")
    for row in alerts.unique("feature", keep="first", maintain_order=True).iter_rows(named=True):
        chosen[row["role"], row["feature"], row["segment"], row["window_days"]] = None
        chosen[INPUT, row["feature"], row["segment"], row["window_days"]] = None
    if not chosen:
        for row in _moved_most(facts).head(1).iter_rows(named=True):
            chosen[row["role"], row["feature"], row["segment"], row["window_days"]] = None
    figures = [_histogram(facts, *key) for key in list(chosen)[:MOST_HISTOGRAMS]]
    return [_section("What moved, in shares of requests", *figures)] if figures else []


def _histogram(facts: _Facts, role: str, feature: str, segment: str, window: int) -> str:
    from xai_assets.plots.histogram import attribution_histogram

    profile, config = facts.profile, facts.monitor.config
    features = [e.feature for e in profile.edges[role]]
    if segment not in profile.segments or feature not in features:
        return ""
    at = profile.segments.index(segment), features.index(feature)
    days = window_days(facts.day, window, config.first_date)
    edges = profile.edges[role][at[1]]
    current = _blocks(facts.monitor, profile, days)[role, "all"]
    levels = _levels(facts.monitor.features[at[1]]) if role == INPUT else ()
    where = "" if segment == OVERALL else f" for {segment}"
    what = f"values of {feature}" if role in VALUE_ROLES else f"{feature} in the {role} model"
    figure = attribution_histogram(
        edges,
        profile.blocks[role, "all"].weight[at][: edges.cells],
        current.weight[at][: edges.cells],
        title=f"{what}{where}: {_span(days)} against the reference",
        unit={INPUT: "feature units", OUTPUT: "output units"}.get(role, "attribution, margin units"),
        levels=levels if len(levels) == edges.inner_cells else (),
    )
    return _image(figure, f"histogram of {feature}, {role}, {segment}")


def _levels(spec: FeatureSpec) -> tuple[str, ...]:
    return {"categorical": spec.categories, "boolean": ("false", "true")}.get(spec.kind, ())


def _span(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} … {days[-1]}"


def _moved_most(facts: _Facts) -> pl.DataFrame:
    today = facts.scores.filter((pl.col("date") == facts.day) & pl.col("psi_corrected_nats").is_not_null())
    return today.sort("psi_corrected_nats", descending=True)


def _largest(facts: _Facts) -> str:
    rows = _moved_most(facts).head(MOST_ROWS).select(SCORE_COLUMNS)
    return _section(
        f"Largest shifts over {facts.window} days", _table(rows, "No day has enough requests to be judged.")
    )


def _explanation_shift(facts: _Facts) -> list[str]:
    """All features together, per role and window; nothing where the day was not compared, or with another reference."""
    lake, name = facts.monitor.lake, facts.monitor.name
    if not lake.exists("explanation_shift", name, facts.day):
        return []
    if lake.metadata("explanation_shift", name, facts.day).get("profile_hash") != facts.profile.profile_hash:
        return []
    features = pl.col("features").list.head(SHIFT_FEATURES)
    rows = lake.read("explanation_shift", name, facts.day).with_columns(features).select(SHIFT_COLUMNS)
    note = "AUC with which a classifier tells a window's attributions from the reference's; 0.5 where nothing differs."
    return [_section("Explanations as a whole", _table(rows, "", sentence_last=True), _note(note))]


def _concept_drift(facts: _Facts) -> list[str]:
    """Whether the models' errors changed, where labels are compared."""
    found = findings(facts.monitor, facts.day)
    return [_section("Errors of labelled requests", *map(_note, found))] if found else []


def _slices(facts: _Facts) -> str:
    """Where the models differ, and where drift concentrates: the rules that held-out requests bore out."""
    differ = _confirmed(facts, "divergence_slices", DIVERGENCE_SLICE_COLUMNS)
    moved = _confirmed(facts, "drift_slices", DRIFT_SLICE_COLUMNS)
    return _section(
        "In which requests",
        _note("Where the two models differ more than elsewhere, |Δ| in output units:"),
        _table(differ, "No rule was confirmed."),
        _note("Where the drift of an attribution concentrates, corrected PSI within the rule and of all others:"),
        _table(moved, "No rule was confirmed."),
    )


def _confirmed(facts: _Facts, table: str, columns: Sequence[str]) -> pl.DataFrame:
    lake, name = facts.monitor.lake, facts.monitor.name
    if not lake.exists(table, name, facts.day):
        return pl.DataFrame()
    return lake.read(table, name, facts.day).filter("confirmed").select(columns).head(MOST_ROWS)


def _statistics(facts: _Facts) -> str:
    """What inputs and outputs looked like on the day."""
    lake, name = facts.monitor.lake, facts.monitor.name
    rows = pl.DataFrame()
    if lake.exists("feature_statistics", name, facts.day):
        whole = (pl.col("segment") == OVERALL) & pl.col("role").is_in(VALUE_ROLES)
        rows = lake.read("feature_statistics", name, facts.day).filter(whole).select(STATISTICS_COLUMNS)
    table = _table(rows, "No statistics are stored for the day, or it has no requests.")
    return _section(f"Inputs and outputs on {facts.day}", table)


def _intake(facts: _Facts) -> str:
    """What became of the source rows in the last two weeks."""
    lake, name = facts.monitor.lake, facts.monitor.name
    reports = []
    for day in all_days(facts.day - timedelta(days=13), facts.day):
        if lake.exists("replay_log", name, day):
            report = stored_report(lake, "replay_log", name, day)
            reports.append({c: getattr(report, c) for c in INTAKE_COLUMNS} | {"date": str(day)})
    frame = pl.DataFrame(reports, schema_overrides={"date": pl.String}) if reports else pl.DataFrame()
    return _section("Source rows of the last two weeks", _table(frame, "No day is stored."))


def _service_levels(facts: _Facts) -> list[str]:
    """How well the days were explained, beside the targets; nothing where no day was measured yet."""
    from xai_assets.plots.service_levels import Panel, service_level_lines

    config = facts.monitor.config
    shown = all_days(max(config.first_date, facts.day - timedelta(days=HEATMAP_DAYS - 1)), facts.day)
    stored = load_levels(facts.monitor.lake, facts.monitor.name, shown)
    if not stored:
        return []
    levels = {(d, x.role, x.measure): x.value for d, day in stored.items() for x in day if x.segment == OVERALL}
    verdicts = judge_days(config, {facts.day: stored.get(facts.day, ())})
    targets = {v.measure: v.target for v in verdicts} | {"additivity_error": config.explanation.additivity_tolerance}
    panels = [
        Panel(
            measure.replace("_", " "),
            MEASURES[measure][0],
            {r: np.array([levels.get((d, r, measure), np.nan) for d in shown]) for r in MODEL_ROLES},
            targets.get(measure),
        )
        for measure in MEASURES
        if measure not in ("bytes", "lipschitz_median", "lipschitz_max")
    ]
    missed = [sentence for v in verdicts for sentence in v.sentences]
    below = [v.measure.replace("_", " ") for v in verdicts if not v.passed]
    met = (
        "every level that was measured meets its target" if any(d == facts.day for d, *_ in levels) else "not measured"
    )
    finding = f"off target: {', '.join(below)}" if below else met
    figure = service_level_lines(shown, panels, title=f"Explanations on {facts.day}: {finding}")
    return [_section("How well requests are explained", _image(figure, "service levels"), *map(_note, missed))]


def _models(facts: _Facts) -> str:
    monitor = facts.monitor
    rows = [
        {"role": r, "version": h[:12], "path": monitor.model_config(r).path} for r, h in monitor.model_hashes.items()
    ]
    parts = [_table(pl.DataFrame(rows), "")]
    if monitor.lake.exists("model_versions", monitor.name):
        columns = ["registered_at", "role", "metric", "candidate_metric", "incumbent_metric", "decision", "artifact"]
        parts.append(_table(monitor.lake.read("model_versions", monitor.name, columns=columns), ""))
    reference = monitor.config.reference
    parts.append(
        _note(f"Reference: {reference.start_date} … {reference.end_date}, profile {facts.profile.profile_hash}.")
    )
    return _section("Models", *parts)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>"


def _table(frame: pl.DataFrame, empty: str, *, sentence_last: bool = False) -> str:
    if frame.is_empty():
        return _note(empty) if empty else ""
    names = frame.columns[:-1] if sentence_last else frame.columns
    head = "".join(f"<th>{html.escape(c.replace('_', ' '))}</th>" for c in names)
    lines = []
    for row in frame.iter_rows():
        sentence = f"<tr><td colspan='{len(names)}' class='sentence'>{html.escape(str(row[-1]))}</td></tr>"
        cells = "".join(_cell(v) for v in row[: len(names)])
        lines.append(f"<tr>{cells}</tr>" + (sentence if sentence_last else ""))
    body = "".join(lines)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            f"<td class='number'>{value:,.4g}</td>"
            if isinstance(value, float)
            else f"<td class='number'>{value:,}</td>"
        )
    if isinstance(value, date):
        return f"<td class='number'>{value:%Y-%m-%d}</td>"
    return f"<td>{html.escape('' if value is None else str(value))}</td>"


def _image(figure: "Figure", alternative: str) -> str:
    data = base64.b64encode(to_png(figure)).decode()
    return f"<img alt='{html.escape(alternative, quote=True)}' src='data:image/png;base64,{data}'>"


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd }
.first { font-size: 1.15rem; font-weight: 600 } .note { color: #666; font-size: .9rem }
img { max-width: 100%; display: block; margin: .5rem 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #eee }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr:has(+ tr > .sentence) td { border-bottom: 0; font-weight: 600 } .sentence { padding-bottom: .6rem }
iframe { width: 100%; height: 900px; border: 1px solid #ccc }
"""


def _page(title: str, parts: Sequence[str]) -> str:
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    body = f"<h1>{html.escape(title)}</h1>{''.join(parts)}"
    return f"<!DOCTYPE html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"
