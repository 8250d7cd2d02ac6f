"""Turns the public hotel bookings into a replay log of two cancellation models.

Belongs here: reading the one public file, choosing what was known when a booking was made, training the two models,
writing daily logs and late labels. Does not belong here: anything the platform does with them (see `defs.yaml`).

Usage: python examples/hotel_bookings/prepare.py PATH_TO_hotel_bookings.parquet OUT_DIR
"""

import argparse
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl

from xai_assets.errors import SourceError
from xai_assets.models.artifact import Model, load_model
from xai_assets.models.training import TrainSettings, evaluate, train_classifier
from xai_assets.records import FeatureSpec

MONITORED = (date(2016, 4, 1), date(2017, 1, 31))
UNSEEN = (date(2016, 7, 1), MONITORED[1])
"""Monitored days in neither model's training; the experimental model was trained on the first three months."""
TRAINED_ON = {
    "production": (date(2015, 7, 1), date(2016, 3, 31)),
    "experimental": (date(2015, 7, 1), date(2016, 6, 30)),
}
"""Booking dates, both ends included. Labels of all these bookings are used, whatever day they became known: this is
training after the fact. A model trained on 2016-03-31 itself could have seen only the outcomes known by then, which
are mostly early cancellations, and would have learnt that far too many bookings are cancelled."""

NUMERIC = (
    "lead_time",
    "arrival_week",
    "arrival_day_of_month",
    "stays_in_weekend_nights",
    "stays_in_week_nights",
    "adults",
    "children",
    "babies",
    "previous_cancellations",
    "previous_bookings_not_canceled",
    "adr",
    "total_of_special_requests",
)
BOOLEAN = ("is_repeated_guest",)
OTHER = "other"
"""Stands for all countries and agents but the twenty most frequent up to 2016-03. Missing stays missing."""
LEVELS: Mapping[str, tuple[str, ...]] = {
    "hotel": ("City Hotel", "Resort Hotel"),
    "meal": ("BB", "FB", "HB", "SC", "Undefined"),
    "country": (
        "AUT", "BEL", "BRA", "CHE", "CHN", "CN", "DEU", "ESP", "FRA", "GBR",
        "IRL", "ISR", "ITA", "NLD", "NOR", "POL", "PRT", "RUS", "SWE", "USA",
        OTHER,
    ),
    "market_segment": (
        "Aviation", "Complementary", "Corporate", "Direct", "Groups", "Offline TA/TO", "Online TA", "Undefined",
    ),
    "distribution_channel": ("Corporate", "Direct", "GDS", "TA/TO", "Undefined"),
    "reserved_room_type": tuple("ABCDEFGHLP"),
    "deposit_type": ("No Deposit", "Non Refund", "Refundable"),
    "agent": (
        "1", "3", "6", "7", "8", "9", "12", "14", "19", "21",
        "28", "29", "37", "40", "134", "229", "240", "241", "250", "314",
        OTHER,
    ),
    "customer_type": ("Contract", "Group", "Transient", "Transient-Party"),
}  # fmt: skip
FEATURES = (
    *(FeatureSpec(name, "numeric") for name in NUMERIC),
    *(FeatureSpec(name, "categorical", levels) for name, levels in LEVELS.items()),
    *(FeatureSpec(name, "boolean") for name in BOOLEAN),
)

KNOWN_ONLY_LATER = (
    "assigned_room_type",
    "booking_changes",
    "days_in_waiting_list",
    "reservation_status",
    "reservation_status_date",
    # Recorded at check-in: 7,416 bookings have a parking space, none of them was cancelled.
    "required_car_parking_spaces",
)
"""Columns that say something about the outcome because they were filled in afterwards. Never features."""

RENAMED = {"arrival_date_week_number": "arrival_week", "arrival_date_day_of_month": "arrival_day_of_month"}
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
SECONDS_A_DAY = 86_400
SMALL = TrainSettings(rounds=100, parameters={"max_depth": 5, "eta": 0.15})


def read_bookings(path: Path) -> pl.DataFrame:
    """All bookings: `request_id`, `requested_at` (UTC), the features, `label` (1 = cancelled) and `known_on`.

    The hour of a booking is not in the data; a fixed one is derived from the row's number.

    Raises
    ------
    SourceError
        Where the file is not there, lacks a column, or holds a level that is not in `LEVELS`.
    """
    if not path.exists():
        raise SourceError(f"{path} is not there", next_step="give the path of hotel_bookings.parquet")
    raw = pl.read_parquet(path)
    _check_columns(raw, path)
    arrival = pl.date("arrival_date_year", _month_number(), "arrival_date_day_of_month")
    booked = arrival - pl.duration(days="lead_time")
    second = (pl.col("row_number") * 7919) % SECONDS_A_DAY
    bookings = raw.with_row_index("row_number").select(
        pl.format("booking-{}", pl.col("row_number").cast(pl.String).str.zfill(6)).alias("request_id"),
        (booked.cast(pl.Datetime("us", "UTC")) + pl.duration(seconds=second)).alias("requested_at"),
        *(_numeric(name) for name in NUMERIC),
        *(_categorical(name) for name in LEVELS),
        *(pl.col(name).cast(pl.Boolean) for name in BOOLEAN),
        label=pl.col("is_canceled").cast(pl.Float64),
        known_on=pl.col("reservation_status_date"),
    )
    _check_levels(bookings, path)
    return bookings.sort("requested_at", "request_id")


def _month_number() -> pl.Expr:
    return pl.col("arrival_date_month").replace_strict(list(MONTHS), list(range(1, 13)), return_dtype=pl.Int32)


def _numeric(feature: str) -> pl.Expr:
    column = {new: old for old, new in RENAMED.items()}.get(feature, feature)
    return pl.col(column).cast(pl.Float64).alias(feature)


def _categorical(feature: str) -> pl.Expr:
    text = pl.col(feature).cast(pl.String)
    if OTHER not in LEVELS[feature]:
        return text.alias(feature)
    listed = text.is_null() | text.is_in(LEVELS[feature])
    return pl.when(listed).then(text).otherwise(pl.lit(OTHER)).alias(feature)


def _check_columns(raw: pl.DataFrame, path: Path) -> None:
    needed = {"is_canceled", "arrival_date_year", "arrival_date_month", *KNOWN_ONLY_LATER, *RENAMED, *BOOLEAN, *LEVELS}
    needed |= set(NUMERIC) - set(RENAMED.values())
    if missing := sorted(needed - set(raw.columns)):
        raise SourceError(f"{path.name} is not the hotel bookings file", expected="columns " + ", ".join(missing))


def _check_levels(bookings: pl.DataFrame, path: Path) -> None:
    for feature, levels in LEVELS.items():
        found = bookings[feature].drop_nulls().unique()
        if unlisted := sorted(set(found) - set(levels)):
            raise SourceError(
                f"{path.name}: unlisted levels of {feature}", expected=", ".join(levels), found=", ".join(unlisted)
            )


def booked_between(bookings: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """Bookings made from `first` to `last`, both included."""
    return bookings.filter(pl.col("requested_at").dt.date().is_between(first, last))


def write_days(frame: pl.DataFrame, day: pl.Expr, folder: Path) -> int:
    """One Parquet file `{date}.parquet` per value of `day`; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = frame.with_columns(_day=day).partition_by("_day", as_dict=True, include_key=False, maintain_order=True)
    for (when,), part in parts.items():
        part.write_parquet(folder / f"{when}.parquet")
    return len(parts)


def train(bookings: pl.DataFrame, path: Path) -> Model:
    """A small gradient-boosted model of cancellation, categorical features native, saved with its levels."""
    artifact = train_classifier(bookings, bookings["label"].to_numpy(), None, FEATURES, settings=SMALL)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(artifact.raw)
    return load_model(path, sha256=artifact.sha256, features=FEATURES)


def auc(model: Model, bookings: pl.DataFrame) -> float:
    return evaluate(model, bookings, bookings["label"].to_numpy()).metrics["auc"]


def prepare(source: Path, out: Path) -> dict[str, float]:
    """Write `logs/`, `labels/` and `models/` into `out`; returns what was written, as counts and AUCs."""
    bookings = read_bookings(source)
    monitored = booked_between(bookings, *MONITORED)
    found: dict[str, float] = {"bookings in the file": bookings.height, "bookings monitored": monitored.height}
    logs = monitored.drop("label", "known_on")
    found["days of logs"] = write_days(logs, pl.col("requested_at").dt.date(), out / "logs")
    labels = monitored.select("request_id", "label", "known_on").sort("known_on", "request_id")
    found["days of labels"] = write_days(labels, pl.col("known_on"), out / "labels")
    for role, days in TRAINED_ON.items():
        training = booked_between(bookings, *days)
        model = train(training, out / "models" / f"{role}.ubj")
        found[f"{role}: bookings trained on"] = training.height
        found[f"{role}: AUC, all monitored days"] = auc(model, monitored)
        found[f"{role}: AUC, from 2016-07-01 on"] = auc(model, booked_between(monitored, *UNSEEN))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, metavar="PATH_TO_hotel_bookings.parquet")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    arguments = parser.parse_args()
    for what, value in prepare(arguments.source, arguments.out).items():
        print(f"{what:<40} {value:>10,.{0 if float(value).is_integer() else 3}f}")


if __name__ == "__main__":
    main()
