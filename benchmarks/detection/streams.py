"""Streams of requests with known faults, and two models that answer them.

Belongs here: drawing days, planting faults, training the models. Does not belong here: detectors (see `ours`, `peers`).

A stationary stream is not made of independent requests: the mix moves from day to day, weekdays differ, and a few
requests arrive many times over within a day. All that is the same in the reference and after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import special

from xai_assets.explain.treeshap import TreeEnsemble, TreeShap
from xai_assets.models.encoding import encode_features
from xai_assets.models.training import TrainSettings, train_classifier
from xai_assets.records import DIFFERENCE, EXPERIMENTAL, INPUT, OVERALL, PRODUCTION, FeatureSpec

Array = np.ndarray[Any, Any]

REFERENCE_DAYS = 28
HEALTHY_DAYS = 7
"""Days after the reference that go before every fault."""
PRODUCTS = ("credit", "car", "home", "study", "other")
DEVICES = ("phone", "computer", "tablet")
FEATURES = (
    *(FeatureSpec(n, "numeric") for n in ("income", "loan", "age", "tenure", "score_a", "score_b")),
    *(FeatureSpec(n, "numeric") for n in ("utilisation", "visits", "distance")),
    FeatureSpec("product", "categorical", PRODUCTS),
    FeatureSpec("device", "categorical", DEVICES),
    FeatureSpec("returning", "boolean"),
)
NAMES = tuple(f.name for f in FEATURES)
NUMERIC = tuple(f.name for f in FEATURES if f.kind == "numeric")
PRODUCTION_LACKS = "distance"
CONTEXT = {
    "region": {"south": 0.40, "north": 0.30, "east": 0.20, "west": 0.10},
    "channel": {"web": 0.42, "app": 0.27, "branch": 0.15, "phone": 0.10, "partner": 0.06},
}
SMALL_SEGMENT = "channel=partner"
PRODUCT_SHARES, DEVICE_SHARES = (0.40, 0.25, 0.18, 0.10, 0.07), (0.55, 0.35, 0.10)
CORRELATED = {"loan": ("income", 0.6), "tenure": ("age", 0.5), "score_b": ("score_a", 0.7)}
"""Feature → the one it depends on, and the correlation of the two on the normal scale."""
MISSING = {"distance": 0.03, "utilisation": 0.01}
DAY_SHIFT = dict(zip(NUMERIC, (0.04, 0.06, 0.03, 0.03, 0.05, 0.04, 0.08, 0.10, 0.05), strict=True))
"""Standard deviation of a day's shift, on the normal scale; half as much again moves with the weekday."""
MIX_SHIFT = 0.12
"""Standard deviation of a day's shift of every level's log-odds."""
WEEKDAY_TRAFFIC = (1.0, 1.03, 1.0, 1.02, 1.0, 0.85, 0.8)
BURSTS_PER_DAY, BURST_SHARE = 2.0, 0.004
TRAINING_DAYS = 20
SETTINGS = TrainSettings(rounds=80, parameters={"max_depth": 4, "learning_rate": 0.15}, threads=1)


@dataclass(frozen=True)
class Fault:
    """One planted fault. place: `overall` or ``context=value``. amount: see `AMOUNTS`. Any of `features` is right."""

    kind: str
    size: str
    place: str
    features: tuple[str, ...]
    amount: float


UNIT, GAP, RECODED, SLOW, CORRELATION, SMALL = (
    "unit change",
    "missing spike",
    "category recoded",
    "slow shift",
    "correlation change",
    "small segment only",
)
SIZES = ("small", "medium", "large", "whole")
AMOUNTS = {
    UNIT: (1.25, 1.5, 3.0, 0.001),  # factor on the value
    GAP: (0.05, 0.20, 0.50, 0.90),  # share of values that go missing; Evidently refuses a column without any
    RECODED: (0.25, 0.60, 0.90, 1.0),  # share that carries the next level's name; 1: all arrive in another spelling
    SLOW: (0.02, 0.05, 0.10, 0.25),  # shift per day, standard deviations
    CORRELATION: (0.40, 0.0, -0.40, -0.80),  # instead of 0.70; margins stay as they are
    SMALL: (1.25, 1.5, 3.0, 0.001),  # a unit change in 6 % of the requests
}
TARGETS = {
    UNIT: ("income", "loan", "tenure"),
    GAP: ("score_a", "utilisation", "income"),
    RECODED: ("product",),
    SLOW: ("utilisation", "loan", "age"),
    CORRELATION: ("score_a",),
    SMALL: ("loan", "income", "tenure"),
}
PLACES = ("region=north", "channel=app", "region=east", "channel=branch")


def planted(seed: int) -> tuple[Fault, ...]:
    """Every kind and size, everywhere and in one segment; features and segments change with the seed."""
    found = []
    for number, kind in enumerate(AMOUNTS):
        feature = TARGETS[kind][seed % len(TARGETS[kind])]
        features = ("score_a", "score_b") if kind == CORRELATION else (feature,)
        segment = PLACES[(seed + number) % len(PLACES)]
        for place in (SMALL_SEGMENT,) if kind == SMALL else (OVERALL, segment):
            pairs = zip(SIZES, AMOUNTS[kind], strict=True)
            found += [Fault(kind, size, place, features, amount) for size, amount in pairs]
    return tuple(found)


@dataclass(frozen=True)
class Requests:
    """n requests as logged: float64 [n] per feature (levels as codes, one more for an unknown one; NaN is missing)."""

    values: dict[str, Array]
    context: dict[str, Array]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """Features and context as a service logs them."""
        levels = {"product": (*PRODUCTS, "OTHER SPELLING"), "device": DEVICES}
        columns = []
        for f in FEATURES:
            series = pl.Series(f.name, self.values[f.name]).fill_nan(None)
            if f.kind == "categorical":
                series = pl.Series(f.name, levels[f.name]).gather(series.cast(pl.UInt32))
            columns.append(series.cast(pl.Boolean) if f.kind == "boolean" else series)
        columns += [pl.Series(name, list(CONTEXT[name])).gather(codes) for name, codes in self.context.items()]
        return pl.DataFrame(columns)


class Service:
    """The stream of one seed. The same day has the same requests with and without a fault.

    memory: share of a day's shift that stays over night (0: days are independent of one another).
    day_effects: how much days differ, as a multiple of what is usual (0: all requests are independent).
    """

    def __init__(self, seed: int, requests_per_day: int, memory: float = 0.0, day_effects: float = 1.0) -> None:
        self.seed, self.requests_per_day = seed, requests_per_day
        self.memory, self.day_effects = memory, day_effects
        self._weekday = np.random.default_rng([seed, 0]).normal(size=(7, len(NUMERIC)))

    def day(self, day: int, fault: Fault | None = None, faulty_days: int = 0) -> Requests:
        """Requests of a day, 1-based; days below 1 are history. faulty_days: how long the fault has been there."""
        rng = np.random.default_rng([self.seed, 1, day + 10_000])
        rows = max(30, round(self.requests_per_day * WEEKDAY_TRAFFIC[day % 7] * float(np.exp(rng.normal(0, 0.04)))))
        source = _bursts(rng, rows, self.day_effects * BURSTS_PER_DAY)
        context = {name: self._levels(rng, tuple(shares.values()), rows)[source] for name, shares in CONTEXT.items()}
        inside = _inside(context, OVERALL if fault is None else fault.place)
        latent = self._latent(rng, day, context, source, fault, inside)
        if fault is not None and fault.kind == SLOW:
            latent[fault.features[0]] += np.where(inside, fault.amount * faulty_days, 0.0)
        values = {
            **_margins(latent),
            "product": self._levels(rng, PRODUCT_SHARES, rows)[source].astype(np.float64),
            "device": self._levels(rng, DEVICE_SHARES, rows)[source].astype(np.float64),
            "returning": (rng.random(rows) < 0.35)[source].astype(np.float64),
        }
        for name, share in MISSING.items():
            values[name] = np.where(rng.random(rows) < share, np.nan, values[name])
        chance = rng.random(rows)
        if fault is not None:
            name = fault.features[0]
            values[name] = _logged(values[name], fault, inside, chance)
        return Requests({name: values[name] for name in NAMES}, context)

    def _latent(
        self,
        rng: np.random.Generator,
        day: int,
        context: dict[str, Array],
        source: Array,
        fault: Fault | None,
        inside: Array,
    ) -> dict[str, Array]:
        """Numeric features on the normal scale, [n] each: what they depend on, then what moves them."""
        rows = len(source)
        repeated = np.where(source != np.arange(rows), 0.03, 0.0)[:, None]
        own = rng.normal(size=(rows, len(NUMERIC)))[source] + repeated * rng.normal(size=(rows, len(NUMERIC)))
        latent = dict(zip(NUMERIC, own.T, strict=True))
        for name, (other, usual) in CORRELATED.items():
            changed = fault is not None and fault.kind == CORRELATION and name in fault.features
            rho = np.where(inside & changed, fault.amount if fault is not None else usual, usual)
            latent[name] = rho * latent[other] + np.sqrt(1 - rho**2) * latent[name]
        for name, shift in zip(NUMERIC, self._shift(day), strict=True):
            latent[name] = latent[name] + DAY_SHIFT[name] * shift
        _depend_on_context(latent, context)
        return latent

    def _shift(self, day: int) -> Array:
        """In units of `DAY_SHIFT`: chance, with memory where there is any, and the weekday."""
        weights = self.memory ** np.arange(30 if self.memory else 1)
        nights = range(len(weights))
        past = [np.random.default_rng([self.seed, 2, day + 10_000 - i]).normal(size=len(NUMERIC)) for i in nights]
        chance = np.tensordot(weights / np.sqrt((weights**2).sum()), np.array(past), axes=1)
        return self.day_effects * (chance + 0.5 * self._weekday[day % 7])

    def _levels(self, rng: np.random.Generator, shares: Sequence[float], rows: int) -> Array:
        p = np.exp(np.log(shares) + self.day_effects * MIX_SHIFT * rng.normal(size=len(shares)))
        return rng.choice(len(shares), rows, p=p / p.sum())


def _bursts(rng: np.random.Generator, rows: int, bursts: float) -> Array:
    """Which request each row repeats: most repeat none."""
    source = np.arange(rows)
    for _ in range(rng.poisson(bursts)):
        size = min(1 + rng.poisson(BURST_SHARE * rows), rows)
        source[rng.choice(rows, size, replace=False)] = rng.integers(rows)
    return source


def _inside(context: dict[str, Array], place: str) -> Array:
    if place == OVERALL:
        return np.ones(len(context["region"]), dtype=bool)
    name, value = place.split("=")
    return np.asarray(context[name] == list(CONTEXT[name]).index(value))


def _depend_on_context(latent: dict[str, Array], context: dict[str, Array]) -> None:
    """Segments differ in their requests, so that a mix that moves is felt in the features."""
    latent["income"] += np.array((0.1, -0.1, 0.0, -0.2))[context["region"]]
    latent["age"] += np.array((0.0, -0.4, 0.4, 0.2, 0.0))[context["channel"]]
    latent["visits"] += np.array((0.2, 0.4, -0.5, -0.3, 0.0))[context["channel"]]
    latent["distance"] += np.array((-0.2, 0.0, 0.2, 0.5))[context["region"]]


def _margins(z: dict[str, Array]) -> dict[str, Array]:
    """Shapes: log-normal, clipped normal, exponential, normal, bounded, counts with many zeros."""
    return {
        "income": np.round(np.exp(10.5 + 0.5 * z["income"]), -1),
        "loan": np.round(np.exp(9.3 + 0.6 * z["loan"]), -1),
        "age": np.round(np.clip(42 + 13 * z["age"], 18, 85)),
        "tenure": np.round(-48 * special.log_ndtr(-z["tenure"]), 1),
        "score_a": 500 + 100 * z["score_a"],
        "score_b": 50 + 15 * z["score_b"],
        "utilisation": np.round(100 * special.ndtr(z["utilisation"]) ** 0.7, 1),
        "visits": np.floor(1.5 * np.exp(0.9 * z["visits"])),
        "distance": np.exp(2 + z["distance"]),
    }


def _logged(values: Array, fault: Fault, inside: Array, chance: Array) -> Array:
    if fault.kind in (UNIT, SMALL):
        return np.where(inside, values * fault.amount, values)
    if fault.kind == GAP:
        return np.where(inside & (chance < fault.amount), np.nan, values)
    if fault.kind == RECODED:
        other = np.full(len(values), len(PRODUCTS)) if fault.amount == 1.0 else (values + 1) % len(PRODUCTS)
        return np.where(inside & (chance < fault.amount), other, values)
    return values


def _default_log_odds(requests: Requests) -> Array:
    """The truth that the models learn: terms of one feature, and interactions."""
    v = {name: np.nan_to_num(x, nan=np.nanmedian(x)) for name, x in requests.values.items()}
    a, b = (v["score_a"] - 500) / 100, (v["score_b"] - 50) / 15
    income, loan = (np.log(v["income"] + 1) - 10.5) / 0.5, (np.log(v["loan"] + 1) - 9.3) / 0.6
    utilisation, tenure = v["utilisation"] / 50 - 1, np.log1p(v["tenure"]) - 3.5
    products = np.array((0.0, -0.6, 0.5, -0.3, 0.9))[v["product"].astype(int)]
    return (
        -0.6
        + 0.7 * a * b
        - 0.3 * a
        - 0.8 * income
        + 0.7 * loan
        + 0.3 * income * loan
        + 0.8 * utilisation * (1 + 0.5 * (v["age"] < 35))
        - 0.5 * tenure
        - 0.02 * (v["age"] - 42)
        + 0.25 * np.log1p(v["visits"])
        + products * (1 - 0.5 * v["returning"])
        + 0.3 * (v["device"] == 2)
        + 0.4 * (np.log(v["distance"]) - 2)
    )


@dataclass(frozen=True)
class Explained:
    """values: per role over all features, as the flow has them, float32 [n, d]; margins: log-odds per model [n]."""

    values: dict[str, Array]
    margins: dict[str, Array]


class Pair:
    """Production and experimental model of one service, trained on its history; production lacks one feature."""

    def __init__(self, service: Service) -> None:
        import xgboost

        days = [service.day(d) for d in range(-TRAINING_DAYS, 0)]
        whole = replace(days[0], values={n: np.concatenate([d.values[n] for d in days]) for n in NAMES}, context={})
        rng = np.random.default_rng([service.seed, 3])
        label = rng.random(len(whole.values["age"])) < special.expit(_default_log_odds(whole))
        self._specs = {
            PRODUCTION: tuple(f for f in FEATURES if f.name != PRODUCTION_LACKS),
            EXPERIMENTAL: FEATURES,
        }
        self._shap = {}
        for role, specs in self._specs.items():
            artifact = train_classifier(whole.frame, label.astype(float), None, specs, settings=SETTINGS)
            booster = xgboost.Booster(model_file=bytearray(artifact.raw))
            self._shap[role] = TreeShap(TreeEnsemble.from_xgboost(booster), threads=1)

    def explain(self, requests: Requests) -> Explained:
        values, margins = {}, {}
        for role, specs in self._specs.items():
            matrix = encode_features(requests.frame, specs)
            explained = self._shap[role].explain(matrix)
            values[role] = np.zeros((len(matrix), len(NAMES)), np.float32)
            values[role][:, [NAMES.index(f.name) for f in specs]] = explained.values
            margins[role] = explained.base_value[0] + explained.values.sum(axis=1, dtype=np.float64)
        values[DIFFERENCE] = values[EXPERIMENTAL] - values[PRODUCTION]
        values[INPUT] = encode_features(requests.frame, FEATURES, unseen="own_code")
        return Explained(values, margins)
