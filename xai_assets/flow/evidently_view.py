"""The comparison view "raw inputs by Evidently": what a check of the inputs alone would say.

Belongs here: bounded samples of the features, Evidently's preset over them, its page as an isolated frame.
Does not belong here: our own scores. Evidently judges each feature's distribution by its own tests and thresholds,
without attributions, segments, persistence or labels; the view is there to compare, alerts never come from it.
"""

import html
import os
import warnings
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

from xai_assets.flow.monitor import Monitor
from xai_assets.records import FeatureSpec

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

SAMPLE_ROWS = 5_000
LEAST_ROWS = 30
TITLE = "Raw inputs by Evidently"
EXPLANATION = (
    "A comparison view: Evidently's DataDriftPreset on a sample of the feature values themselves, with its own tests "
    "and thresholds. It knows nothing of attributions, segments or labels, and no alert above comes from it."
)


def raw_inputs_section(monitor: Monitor, window: Sequence[date]) -> str:
    """The section of the report: samples of at most 5,000 rows, from the reference days and from the window."""
    samples = [sample_features(monitor, days) for days in (monitor.config.reference_days, window)]
    head = f"<section><h2>{TITLE}</h2><p class='note'>{html.escape(EXPLANATION)}</p>"
    specs = [f for f in monitor.config.features if all(s[f.name].null_count() < s.height for s in samples)]
    sizes = f"{samples[0].height:,} rows of the reference and {samples[1].height:,} of {window[0]} … {window[-1]}"
    if min(s.height for s in samples) < LEAST_ROWS or not specs:
        return f"{head}<p>Left out: {sizes} are stored, at least {LEAST_ROWS} each are needed.</p></section>"
    left_out = [f.name for f in monitor.config.features if f not in specs]
    note = f"Samples: {sizes}." + (f" Without a value, left out: {', '.join(left_out)}." if left_out else "")
    page = _isolated(_evidently_page(_frame(samples[0], specs), _frame(samples[1], specs), specs))
    frame = f"<iframe sandbox='allow-scripts' title='{TITLE}' srcdoc=\"{html.escape(page, quote=True)}\"></iframe>"
    return f"{head}<p class='note'>{html.escape(note)}</p>{frame}</section>"


def _isolated(page: str) -> str:
    """The page with storage of its own. The frame's sandbox keeps it, and any text of the log it shows, away from the
    report; a sandboxed frame has no localStorage, which Evidently's page reads."""
    return page.replace("<head>", f"<head><script>{_STORAGE}</script>", 1)


_STORAGE = (
    "for (const name of ['localStorage', 'sessionStorage']) { const kept = {}; Object.defineProperty(window, name, "
    "{value: {getItem: k => kept[k] ?? null, setItem: (k, v) => { kept[k] = String(v) }, "
    "removeItem: k => { delete kept[k] }}}) }"
)


def sample_features(monitor: Monitor, days: Sequence[date], rows: int = SAMPLE_ROWS) -> pl.DataFrame:
    """A seeded sample of the features over these days, each day in proportion to its requests; [≤ rows + days]."""
    lake, name, features = monitor.lake, monitor.name, list(monitor.config.feature_names)
    counts = {d: lake.row_count("replay_log", name, d) for d in days if lake.exists("replay_log", name, d)}
    total = sum(counts.values())
    parts = [
        lake.read("replay_log", name, d, columns=features).sample(
            n=min(n, -(-rows * n // total)), seed=monitor.config.explanation.seed
        )
        for d, n in counts.items()
        if n
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(features, pl.Null))


def _frame(sample: pl.DataFrame, specs: Sequence[FeatureSpec]) -> "pd.DataFrame":
    texts = [pl.col(f.name).cast(pl.String) if f.kind != "numeric" else pl.col(f.name).cast(pl.Float64) for f in specs]
    return sample.select(texts).to_pandas()


def _evidently_page(reference: "pd.DataFrame", current: "pd.DataFrame", specs: Sequence[FeatureSpec]) -> str:
    # Evidently sends usage events unless this is set before it is imported.
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        # Importing Evidently warns of numpy and litestar deprecations of its own.
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(
            numerical_columns=[f.name for f in specs if f.kind == "numeric"],
            categorical_columns=[f.name for f in specs if f.kind != "numeric"],
        )
        datasets: list[Any] = [Dataset.from_pandas(f, definition) for f in (current, reference)]
        return str(Report([DataDriftPreset()]).run(*datasets).get_html_str(as_iframe=False))
