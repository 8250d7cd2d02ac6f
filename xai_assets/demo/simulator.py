"""A shadow deployment as files: daily logs, labels that arrive a week later, and the two models in service.

Belongs here: traffic over days and hours, training the two models on their history, writing the files.
Does not belong here: who applies and who defaults (see `service`), what goes wrong (see `faults`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from xai_assets.demo.faults import DEFAULT_FAULTS, FIRST_DATE, LABEL_DELAY_DAYS, PlantedFault, day_date
from xai_assets.demo.service import FEATURES, SHADOW_ONLY, Requests, draw
from xai_assets.errors import SourceError
from xai_assets.models.artifact import Model, load_model
from xai_assets.models.training import TrainSettings, train_classifier
from xai_assets.records import EXPERIMENTAL, PRODUCTION, FeatureSpec

VERSION = 2
"""Raised when the same arguments would give other files."""
REFERENCE_DAYS = 28
"""Days 1 to 28 are clean: no planted fault may start in them."""
HISTORY_ROWS = 40_000
"""Training rows per model, from before day 1."""
SETTINGS = TrainSettings(rounds=60, parameters={"max_depth": 3, "learning_rate": 0.25}, threads=1)
WEEKDAY_TRAFFIC = (1.06, 1.05, 1.04, 1.03, 1.04, 0.90, 0.88)
HOUR_TRAFFIC = (2, 1, 1, 1, 1, 2, 4, 8, 12, 15, 16, 15, 13, 14, 15, 14, 13, 12, 12, 13, 13, 10, 7, 4)
BURST_PROBABILITY = 0.15
BURST_SHARE = 0.20
MANIFEST = "simulation.json"


@dataclass(frozen=True)
class Simulation:
    """What was written, and the truth about it."""

    directory: Path
    first_date: date
    last_date: date
    reference: tuple[date, date]
    rows: int
    labels: int
    faults: tuple[PlantedFault, ...]
    production: Path
    experimental: Path

    @property
    def dates(self) -> tuple[date, ...]:
        days = (self.last_date - self.first_date).days + 1
        return tuple(self.first_date + timedelta(days=i) for i in range(days))


def simulate(
    directory: str | Path,
    *,
    days: int = 60,
    requests_per_day: int = 5000,
    seed: int = 7,
    faults: Sequence[PlantedFault] = DEFAULT_FAULTS,
) -> Simulation:
    """Write ``logs/{date}.parquet``, ``labels/{date}.parquet`` and ``models/{production,experimental}.ubj``.

    Labels of a day's requests are in the file of the day `LABEL_DELAY_DAYS` later; those that would arrive after the
    last day are not written. Both models' outputs, on the features as logged, are in the logs.
    A directory that already holds exactly this simulation is left alone, so that no day looks changed.

    Parameters
    ----------
    days, requests_per_day
        Length of the monitored period, and mean number of requests a day; weekday and chance move it by some percent.
    faults
        () gives the healthy twin: the same applicants, nothing wrong.

    Raises
    ------
    SourceError
        A fault starts in the reference days, or the numbers are not positive.
    """
    _check(days, requests_per_day, faults)
    root = Path(directory)
    wanted = _description(days, requests_per_day, seed, faults)
    if (existing := _existing(root, wanted)) is None:
        existing = _write(root, wanted, days, requests_per_day, seed, faults)
    return Simulation(
        directory=root,
        first_date=FIRST_DATE,
        last_date=day_date(days),
        reference=(FIRST_DATE, day_date(min(REFERENCE_DAYS, days))),
        rows=existing["rows"],
        labels=existing["labels"],
        faults=tuple(faults),
        production=root / "models" / "production.ubj",
        experimental=root / "models" / "experimental.ubj",
    )


def _check(days: int, requests_per_day: int, faults: Sequence[PlantedFault]) -> None:
    if days < 1 or requests_per_day < 1:
        raise SourceError(
            "a simulation needs days and requests", expected="1 or more", found=f"{days} and {requests_per_day}"
        )
    for fault in faults:
        if fault.first_day <= REFERENCE_DAYS:
            raise SourceError(
                f"fault '{fault.name}' starts in the reference days",
                expected=f"a first day after {REFERENCE_DAYS}",
                found=str(fault.first_day),
            )


def _description(days: int, requests_per_day: int, seed: int, faults: Sequence[PlantedFault]) -> dict[str, object]:
    plain = {
        "version": VERSION,
        "days": days,
        "requests_per_day": requests_per_day,
        "seed": seed,
        "faults": [asdict(f) for f in faults],
    }
    return dict(json.loads(json.dumps(plain)))


def _existing(root: Path, wanted: dict[str, object]) -> dict[str, int] | None:
    """Counts of a complete simulation with these arguments, or None."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        return None
    found = json.loads(manifest.read_text())
    complete = all((root / n).is_file() and (root / n).stat().st_size == s for n, s in found.get("files", {}).items())
    return found["counts"] if complete and found.get("arguments") == wanted else None


def _write(
    root: Path,
    wanted: dict[str, object],
    days: int,
    requests_per_day: int,
    seed: int,
    faults: Sequence[PlantedFault],
) -> dict[str, int]:
    for folder in ("logs", "labels", "models"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stale in (*root.glob("logs/????-??-??.parquet"), *root.glob("labels/????-??-??.parquet")):
        stale.unlink()
    # Without its manifest a half-written directory is never taken for a complete one.
    (root / MANIFEST).unlink(missing_ok=True)
    models = _train_models(root / "models", seed)
    counts = {"rows": 0, "labels": 0}
    for day in range(1, days + 1):
        log, labels = _day(np.random.default_rng([seed, day]), day, requests_per_day, faults, models)
        log.write_parquet(root / "logs" / f"{day_date(day)}.parquet")
        counts["rows"] += log.height
        if day + LABEL_DELAY_DAYS <= days:
            labels.write_parquet(root / "labels" / f"{day_date(day + LABEL_DELAY_DAYS)}.parquet")
            counts["labels"] += labels.height
    files = {str(p.relative_to(root)): p.stat().st_size for p in sorted(root.glob("*/*"))}
    (root / MANIFEST).write_text(json.dumps({"arguments": wanted, "counts": counts, "files": files}, indent=1))
    return counts


def _train_models(folder: Path, seed: int) -> dict[str, Model]:
    """Production learnt from an earlier market and without `SHADOW_ONLY`; the shadow from the months before day 1."""
    history: dict[str, tuple[float, tuple[FeatureSpec, ...]]] = {
        PRODUCTION: (-1.0, tuple(f for f in FEATURES if f.name not in SHADOW_ONLY)),
        EXPERIMENTAL: (0.0, FEATURES),
    }
    models = {}
    for number, (role, (offset, features)) in enumerate(history.items()):
        rows = draw(np.random.default_rng([seed, 1_000_000 + number]), HISTORY_ROWS, interest_offset=offset)
        trained = train_classifier(rows.frame(), rows.label, None, features, settings=SETTINGS)
        path = folder / f"{role}.ubj"
        path.write_bytes(trained.raw)
        models[role] = load_model(path, features=FEATURES)
    return models


def _day(
    rng: np.random.Generator,
    day: int,
    requests_per_day: int,
    faults: Sequence[PlantedFault],
    models: dict[str, Model],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Log and labels of one day; the labels' rows are in the order of arrival, not of the requests."""
    traffic = WEEKDAY_TRAFFIC[day_date(day).weekday()] * (1 + 0.02 * rng.normal())
    rows = max(1, round(requests_per_day * traffic))
    requested_at = _times(rng, day_date(day), rows)
    latencies = {role: np.round(np.exp(rng.normal(np.log(ms), 0.25, rows)), 2) for role, ms in _LATENCY_MS.items()}
    order = rng.permutation(rows)
    requests = draw(rng, rows, [f for f in faults if f.first_day <= day])
    frame = requests.frame()
    request_id = pl.Series("request_id", [f"{day_date(day):%Y%m%d}-{i:06d}" for i in range(rows)])
    log = frame.select(
        request_id,
        requested_at,
        *frame.columns,
        *(pl.Series(f"{role}_output", model.predict_output(model.encode(frame))) for role, model in models.items()),
        *(pl.Series(f"{role}_latency_ms", values) for role, values in latencies.items()),
    )
    return log, _labels(request_id, requests)[order]


_LATENCY_MS = {PRODUCTION: 12.0, EXPERIMENTAL: 14.0}


def _labels(request_id: pl.Series, requests: Requests) -> pl.DataFrame:
    return pl.DataFrame([request_id, pl.Series("label", requests.label)])


def _times(rng: np.random.Generator, on: date, rows: int) -> pl.Series:
    """Request times, UTC, rising: a daily pattern, and on some days a burst of a fifth of the traffic in 20 minutes."""
    weights = np.asarray(HOUR_TRAFFIC, dtype=np.float64)
    hours = rng.choice(24, rows, p=weights / weights.sum())
    seconds = hours * 3600 + rng.uniform(0, 3600, rows)
    burst, start = rng.random() < BURST_PROBABILITY, rng.uniform(8, 20) * 3600
    within = rng.random(rows) < BURST_SHARE
    if burst:
        seconds = np.where(within, start + rng.uniform(0, 1200, rows), seconds)
    midnight = pl.Series([datetime(on.year, on.month, on.day)], dtype=pl.Datetime("us"))
    offsets = pl.Series((np.sort(seconds) * 1e6).astype(np.int64)).cast(pl.Duration("us"))
    return (midnight.extend_constant(midnight[0], rows - 1) + offsets).dt.replace_time_zone("UTC").alias("requested_at")
