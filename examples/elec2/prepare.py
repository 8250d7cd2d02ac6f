"""Turns the New South Wales electricity data into a replay log of two price models whose difference is known.

Belongs here: reading the one public file, training the two models, writing daily logs and next-day labels.
Does not belong here: anything the platform does with them (see `defs.yaml`).

Usage: python examples/elec2/prepare.py PATH_TO_elec2.parquet OUT_DIR
"""

import argparse
from datetime import timedelta
from pathlib import Path

import polars as pl

from xai_assets.errors import SourceError
from xai_assets.models.artifact import Model, load_model
from xai_assets.models.training import TrainSettings, score_outputs, train_classifier
from xai_assets.records import FeatureSpec

TRAINED_ON = {"production": (0, 17_424), "experimental": (17_424, 30_000)}
"""Rows, the end not included. In the first 17,424 half-hours `vic_price`, `vic_demand` and `transfer` never change:
a model trained there cannot split on them, so its attributions to them are exactly 0. The experimental model can."""
REPLAYED_FROM = 30_000

NUMERIC = ("period", "nsw_price", "nsw_demand", "vic_price", "vic_demand", "transfer")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FEATURES = (*(FeatureSpec(name, "numeric") for name in NUMERIC), FeatureSpec("day_of_week", "categorical", WEEKDAYS))

HALF_HOURS_A_DAY = 48
SMALL = TrainSettings(rounds=60, parameters={"max_depth": 4, "eta": 0.3})


def read_half_hours(path: Path) -> pl.DataFrame:
    """All half-hours: `request_id`, `requested_at`, the features, `label` (1 = the price went up).

    `requested_at` is the market's own clock, kept as if it were UTC: every day has 48 half-hours, none is skipped
    or repeated when other clocks change.

    Raises
    ------
    SourceError
        Where the file is not there, lacks a column, or is not whole days in order.
    """
    if not path.exists():
        raise SourceError(f"{path} is not there", next_step="give the path of elec2.parquet")
    raw = pl.read_parquet(path)
    if missing := sorted({"start_at", "price_up", *(f.name for f in FEATURES)} - set(raw.columns)):
        raise SourceError(f"{path.name} is not the elec2 file", expected="columns " + ", ".join(missing))
    if not raw["start_at"].is_sorted() or raw.height % HALF_HOURS_A_DAY:
        raise SourceError(f"{path.name} is not whole days of half-hours in order", found=f"{raw.height} rows")
    start = pl.col("start_at").cast(pl.Datetime("us"))
    return raw.select(
        start.dt.strftime("elec2-%Y%m%dT%H%M").alias("request_id"),
        start.dt.replace_time_zone("UTC").alias("requested_at"),
        *(pl.col(name).cast(pl.Float64) for name in NUMERIC),
        day_of_week=pl.col("day_of_week").replace_strict(list(range(1, 8)), list(WEEKDAYS), return_dtype=pl.String),
        label=pl.col("price_up").cast(pl.Float64),
    )


def train(rows: pl.DataFrame, path: Path) -> Model:
    """A small gradient-boosted model of the price going up, saved with the levels of `day_of_week`."""
    artifact = train_classifier(rows, rows["label"].to_numpy(), None, FEATURES, settings=SMALL)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(artifact.raw)
    return load_model(path, sha256=artifact.sha256, features=FEATURES)


def write_days(frame: pl.DataFrame, day: pl.Expr, folder: Path) -> int:
    """One Parquet file `{date}.parquet` per value of `day`; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = frame.with_columns(_day=day).partition_by("_day", as_dict=True, include_key=False, maintain_order=True)
    for (when,), part in parts.items():
        part.write_parquet(folder / f"{when}.parquet")
    return len(parts)


def prepare(source: Path, out: Path) -> dict[str, float]:
    """Write `logs/`, `labels/` and `models/` into `out`; returns what was written, as counts and shares."""
    rows = read_half_hours(source)
    replayed = rows[REPLAYED_FROM:]
    day = pl.col("requested_at").dt.date()
    found: dict[str, float] = {"half-hours in the file": rows.height, "half-hours replayed": replayed.height}
    found["days of logs"] = write_days(replayed.drop("label"), day, out / "logs")
    labels = replayed.select("request_id", "label", "requested_at")
    known_on = day + timedelta(days=1)
    found["days of labels"] = write_days(labels, known_on, out / "labels")
    outputs, truth = {}, replayed["label"].to_numpy()
    for role, (first, end) in TRAINED_ON.items():
        model = train(rows[first:end], out / "models" / f"{role}.ubj")
        outputs[role] = model.predict_output(model.encode(replayed))
        found[f"{role}: half-hours trained on"] = end - first
        found[f"{role}: AUC on the replayed days"] = score_outputs(outputs[role], truth, is_classifier=True).metrics[
            "auc"
        ]
    differ = (outputs["production"] > 0.5) != (outputs["experimental"] > 0.5)
    found["share of replayed half-hours decided differently"] = float(differ.mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, metavar="PATH_TO_elec2.parquet")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()
    for what, value in prepare(arguments.source, arguments.out).items():
        print(f"{what:<50} {value:>10,.{0 if float(value).is_integer() else 3}f}")


if __name__ == "__main__":
    main()
