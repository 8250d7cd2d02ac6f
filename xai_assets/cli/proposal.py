"""From a look at logs and models to the keys of a monitor: names first, content as the proof.

Belongs here: which column is what, with every guess spelled out. A pure function of what was seen.
Does not belong here: reading files (see `init`), the values that keys may have (see `config`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from xai_assets.errors import SourceError, nearest

if TYPE_CHECKING:
    from xai_assets.lake.source import ColumnProfile

ID_NAMES = ("request_id", "prediction_id", "inference_id", "transaction_id", "event_id", "trace_id", "uuid", "id")
TIME_NAMES = (
    "requested_at",
    "request_time",
    "predicted_at",
    "timestamp",
    "event_time",
    "created_at",
    "datetime",
    "ts",
    "time",
)
LABEL_NAMES = ("label", "target", "outcome", "truth", "ground_truth", "actual", "y", "y_true")
ROLE_WORDS = {
    "production": {"production", "prod", "champion", "live", "incumbent"},
    "experimental": {"experimental", "experiment", "exp", "shadow", "challenger", "candidate"},
}
OUTPUT_WORDS = {"output", "score", "prob", "probability", "proba", "prediction", "pred", "value"}
LATENCY_WORDS = {"latency", "duration", "ms"}
MOST_CONTEXT, MOST_LEVELS = 3, 20
REFERENCE_DAYS = 28


@dataclass(frozen=True)
class ModelFeature:
    """One feature as the models name it; kind: numeric, categorical or boolean, "" where the model does not say."""

    name: str
    kind: str


@dataclass(frozen=True)
class Seen:
    """What was looked at. days: first and last day of requests; None where no time was found."""

    pattern: str
    format: str
    rows: int
    columns: tuple["ColumnProfile", ...]
    features: tuple[ModelFeature, ...]
    production: str
    experimental: str
    renames: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Proposal:
    """The attributes of `defs.yaml`; what was assumed, and what could not be found, one sentence each."""

    attributes: dict[str, Any]
    assumed: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)


def propose(seen: Seen, days: Sequence[date] = ()) -> Proposal:
    """A configuration for what was seen.

    days: the days of the logs, rising; may be filled in later with `set_reference`.

    Raises
    ------
    SourceError
        A feature of a model is in no column, or there is no column of ids or of times.
    """
    proposal = Proposal({})
    by_name = {c.name: c for c in seen.columns}
    source_columns = _feature_columns(seen, by_name, proposal)
    free = [c for c in seen.columns if c.name not in set(source_columns.values())]
    columns: dict[str, Any] = {"request_id": _request_id(free, seen.rows, proposal)}
    columns["requested_at"] = _requested_at(free, proposal)
    columns |= _optional_columns(free, columns, proposal)
    renamed = {f: c for f, c in source_columns.items() if f != c}
    if renamed:
        columns["features"] = renamed
    context = _context(free, {columns[k] for k in columns if k != "features"})
    if context:
        proposal.assumed.append(f"segments by {', '.join(context)}: text with few values that is no feature")
    source: dict[str, Any] = {"path": seen.pattern}
    if not seen.pattern.endswith((f".{seen.format}", ".pq" if seen.format == "parquet" else ".ndjson")):
        source["format"] = seen.format
    proposal.attributes |= {
        "source": source,
        "columns": columns,
        "features": _kinds(seen, by_name, source_columns, proposal),
        "context": context,
        "models": {"production": seen.production, "experimental": seen.experimental},
    }
    if days:
        set_reference(proposal, days[0], days[-1])
    return proposal


def set_reference(proposal: Proposal, first: date, last: date) -> None:
    """The first 28 days define normal, or the first half where there are fewer than 56."""
    span = (last - first).days + 1
    length = max(1, min(REFERENCE_DAYS, span // 2))
    end = first + timedelta(days=length - 1)
    proposal.attributes["reference"] = {"start_date": first, "end_date": end}
    which = "the first 28 days" if length == REFERENCE_DAYS else f"the first half of {span} days"
    proposal.assumed.append(f"{first} … {end} define normal: {which} seen")
    if length < 7:
        proposal.not_found.append(f"a week of reference: only {length} days, so weekdays will look like drift")


def _feature_columns(seen: Seen, by_name: Mapping[str, "ColumnProfile"], proposal: Proposal) -> dict[str, str]:
    """Source column of each feature. A spelling that differs in case and separators alone is taken as the same."""
    by_spelling = {_spelling(n): n for n in by_name}
    found, missing = {}, []
    for feature in seen.features:
        name = seen.renames.get(feature.name, feature.name)
        column = name if name in by_name else by_spelling.get(_spelling(name))
        if column is None:
            missing.append(name)
            continue
        found[feature.name] = column
        if column != feature.name and feature.name not in seen.renames:
            proposal.assumed.append(f"feature '{feature.name}' is the column '{column}'")
    if missing:
        free = [n for n in by_name if n not in found.values()]
        hints = "; ".join(f"'{m}': {nearest(m, free)}" for m in missing[:5])
        raise SourceError(
            f"{len(missing)} feature(s) of the models are in no column: {', '.join(missing)}",
            expected="a column for each feature of both models",
            found=f"{len(by_name)} columns",
            next_step=f"name the column with --rename FEATURE=COLUMN ({hints})",
        )
    return found


def _kinds(
    seen: Seen, by_name: Mapping[str, "ColumnProfile"], columns: Mapping[str, str], proposal: Proposal
) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {"numeric": [], "categorical": [], "boolean": []}
    for feature in seen.features:
        in_file = by_name[columns[feature.name]].kind
        kind = feature.kind or {"boolean": "boolean", "text": "categorical"}.get(in_file, "numeric")
        if kind == "numeric" and in_file == "text":
            kind = "categorical"
            proposal.not_found.append(f"the codes of '{feature.name}': the model reads numbers, the log holds text")
        elif kind == "numeric" and in_file == "boolean":
            kind = "boolean"
        kinds[kind].append(feature.name)
    return {k: names for k, names in kinds.items() if names}


def _request_id(free: Sequence["ColumnProfile"], rows: int, proposal: Proposal) -> str:
    unique = [c for c in free if c.kind in ("text", "numeric") and c.missing_share == 0 and c.distinct_values == rows]
    named = [c for n in ID_NAMES for c in free if _spelling(c.name) == _spelling(n) and c.missing_share < 1]
    ids = [c for c in unique if c.name.lower().endswith("id")]
    best = next(
        iter([*[c for c in named if c in unique], *named, *ids, *[c for c in unique if c.kind == "text"]]), None
    )
    if best is None:
        raise SourceError(
            "no column identifies a request",
            expected="a column that is not a feature, with another value in every row",
            found=", ".join(c.name for c in free) or "only features",
            next_step="add one to the log, such as request_id",
        )
    if best not in unique:
        proposal.assumed.append(f"'{best.name}' identifies a request, though it repeats in the rows looked at")
    elif best not in named:
        proposal.assumed.append(f"'{best.name}' identifies a request: it differs in every row looked at")
    return best.name


def _requested_at(free: Sequence["ColumnProfile"], proposal: Proposal) -> str:
    times = [c for c in free if c.kind == "time"]
    spelled = {_spelling(n): i for i, n in enumerate(TIME_NAMES)}
    named = [c for c in free if _spelling(c.name) in spelled and c.kind in ("time", "numeric")]
    named.sort(key=lambda c: (c.kind != "time", spelled[_spelling(c.name)]))
    best = next(iter([*named, *times]), None)
    if best is None:
        raise SourceError(
            "no column tells when a request was made",
            expected="a timestamp, ISO text, or seconds since 1970 in a column that is not a feature",
            found=", ".join(c.name for c in free) or "only features",
            next_step="add one to the log, such as requested_at",
        )
    if best.name != "requested_at":
        proposal.assumed.append(f"'{best.name}' is the time of the request")
    proposal.assumed.append("times without an offset are UTC (source.timezone changes that)")
    return best.name


def _optional_columns(free: Sequence["ColumnProfile"], taken: Mapping[str, str], proposal: Proposal) -> dict[str, str]:
    found: dict[str, str] = {}
    numeric = [c.name for c in free if c.kind in ("numeric", "boolean") and c.name not in taken.values()]
    for role, words in ROLE_WORDS.items():
        for what, ending, wanted in (("output", "_output", OUTPUT_WORDS), ("latency", "_latency_ms", LATENCY_WORDS)):
            match = [n for n in numeric if _words(n) & words and _words(n) & wanted]
            if match:
                found[f"{role}{ending}"] = match[0]
                if match[0] != f"{role}{ending}":
                    proposal.assumed.append(f"'{match[0]}' is the {role} {what}")
            elif what == "output":
                proposal.not_found.append(f"a logged output of the {role} model: rows are replayed through it")
    label = next((n for wanted in LABEL_NAMES for n in numeric if _spelling(n) == _spelling(wanted)), None)
    if label:
        found["label"] = label
        proposal.assumed.append(f"'{label}' is the truth, known when the log is written")
    else:
        proposal.not_found.append("labels: add 'labels:' with a path when they arrive later")
    return found


def _context(free: Sequence["ColumnProfile"], taken: set[str]) -> list[str]:
    few = [
        c.name
        for c in free
        if c.name not in taken and c.kind == "text" and 2 <= c.distinct_values <= MOST_LEVELS and c.missing_share < 0.5
    ]
    return few[:MOST_CONTEXT]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def _spelling(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
