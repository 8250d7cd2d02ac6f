"""The simulated lending service: who applies, and who defaults.

Belongs here: distributions of requests and the true log-odds of default, as plain documented formulas.
Does not belong here: files, days and traffic (see `simulator`), faults as records (see `faults`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.demo.faults import PlantedFault, move_towards, unit_error
from xai_assets.records import OVERALL, FeatureSpec, Float64

PURPOSE = ("debt_consolidation", "home_improvement", "car", "medical", "education", "small_business")
EMPLOYMENT_TYPE = ("salaried", "self_employed", "student", "retired")
HOME_OWNERSHIP = ("rent", "mortgage", "own")
CONTEXT: Mapping[str, tuple[str, ...]] = {
    "region": ("north", "south", "east", "west"),
    "channel": ("web", "app", "branch", "broker"),
    "customer_tier": ("standard", "plus", "premium"),
}
CONTEXT_SHARES: Mapping[str, tuple[float, ...]] = {
    "region": (0.30, 0.25, 0.25, 0.20),
    "channel": (0.45, 0.25, 0.15, 0.15),
    "customer_tier": (0.60, 0.30, 0.10),
}
FEATURES: tuple[FeatureSpec, ...] = (
    FeatureSpec("annual_income", "numeric"),
    FeatureSpec("loan_amount", "numeric"),
    FeatureSpec("loan_term_months", "numeric"),
    FeatureSpec("interest_rate_percent", "numeric"),
    FeatureSpec("utilization_percent", "numeric"),
    FeatureSpec("age_years", "numeric"),
    FeatureSpec("employment_months", "numeric"),
    FeatureSpec("credit_history_months", "numeric"),
    FeatureSpec("open_accounts", "numeric"),
    FeatureSpec("recent_inquiries", "numeric"),
    FeatureSpec("purpose", "categorical", PURPOSE),
    FeatureSpec("employment_type", "categorical", EMPLOYMENT_TYPE),
    FeatureSpec("home_ownership", "categorical", HOME_OWNERSHIP),
    FeatureSpec("is_existing_customer", "boolean"),
    FeatureSpec("has_guarantor", "boolean"),
)
SHADOW_ONLY = ("recent_inquiries",)
"""Features that only the shadow model uses."""
LEVELS: Mapping[str, tuple[str, ...]] = {f.name: f.categories for f in FEATURES if f.categories} | dict(CONTEXT)

PURPOSE_LOG_ODDS = (0.10, -0.10, -0.15, 0.20, 0.0, 0.55)
EMPLOYMENT_TYPE_LOG_ODDS = (0.0, 0.30, 0.35, -0.10)
HOME_LOG_ODDS = (0.25, -0.05, -0.30)
LOWER_BOUNDS: Mapping[str, float] = {"age_years": 18.0, "employment_months": 1.0, "credit_history_months": 0.0}
"""Where a population shift moves a feature towards."""
MISSING_SHARES: Mapping[str, float] = {
    "employment_months": 0.03,
    "utilization_percent": 0.04,
    "credit_history_months": 0.03,
    "has_guarantor": 0.01,
}
"""Share of requests in which the value exists but was not given."""


@dataclass(frozen=True)
class Requests:
    """n requests. `true` and `logged` hold float64 [n] per feature (levels as codes, NaN = none or not given); they
    differ where a fault or a missing answer comes between. `context` holds codes, `label` whether the loan failed."""

    true: dict[str, Float64]
    logged: dict[str, Float64]
    context: dict[str, npt.NDArray[np.int64]]
    label: npt.NDArray[np.int8]
    default_probability: Float64

    def frame(self) -> pl.DataFrame:
        """Features and context as a service logs them: text, true/false and null instead of codes and NaN."""
        columns = [_column(f.name, f.kind, self.logged[f.name]) for f in FEATURES]
        columns += [_column(name, "categorical", codes.astype(np.float64)) for name, codes in self.context.items()]
        return pl.DataFrame(columns)


def draw(
    rng: np.random.Generator, rows: int, faults: Sequence[PlantedFault] = (), *, interest_offset: float = 0.0
) -> Requests:
    """Draw requests and their outcomes.

    The same generator state gives the same applicants with and without faults, so that a run with faults and its
    healthy twin differ by the faults alone.

    Parameters
    ----------
    interest_offset
        Percentage points added to every interest rate (the market of an earlier period).
    """
    context = {name: rng.choice(len(shares), rows, p=shares) for name, shares in CONTEXT_SHARES.items()}
    true = _applicants(rng, rows, context, interest_offset)
    for fault in faults:
        if fault.kind == "population_shift":
            _shift_population(true, fault, _inside(fault.segment, context, rows))
    effects = {
        f.features[0]: np.where(_inside(f.segment, context, rows), f.factor, 1.0)
        for f in faults
        if f.kind == "relation_change"
    }
    noise = rng.normal(0.0, 0.3, rows)
    probability = 1.0 / (1.0 + np.exp(-(default_log_odds(true, effects) + noise)))
    label = (rng.random(rows) < probability).astype(np.int8)
    logged = _logged(rng, true)
    for fault in faults:
        if fault.kind == "unit_error":
            name = fault.features[0]
            logged[name] = unit_error(logged[name], _inside(fault.segment, context, rows), fault.factor)
    return Requests(true, logged, context, label, probability)


def default_log_odds(true: Mapping[str, Float64], effects: Mapping[str, Float64] | None = None) -> Float64:
    """True log-odds of default, float64 [n]: a sum of one term per feature and one interaction.

    effects: feature → factor [n] on its term; 1 where it is not named.
    """
    months = np.nan_to_num(true["employment_months"], nan=48.0)
    terms = {
        "annual_income": -1.0 * np.log(true["annual_income"] / 42_000),
        "loan_amount": 0.55 * np.log(true["loan_amount"] / 12_000),
        "loan_term_months": 0.008 * (true["loan_term_months"] - 36),
        "interest_rate_percent": 0.17 * (true["interest_rate_percent"] - 9.5),
        "utilization_percent": 0.016 * (true["utilization_percent"] - 45),
        "age_years": -0.015 * (true["age_years"] - 42),
        "employment_months": -0.50 * np.log((months + 6) / 54),
        "credit_history_months": -0.20 * np.log((true["credit_history_months"] + 12) / 120),
        "open_accounts": 0.03 * (true["open_accounts"] - 6),
        "recent_inquiries": 0.30 * (true["recent_inquiries"] - 1.2),
        "purpose": _of_level(PURPOSE_LOG_ODDS, true["purpose"]),
        "employment_type": _of_level(EMPLOYMENT_TYPE_LOG_ODDS, true["employment_type"]),
        "home_ownership": _of_level(HOME_LOG_ODDS, true["home_ownership"]),
        "is_existing_customer": -0.25 * true["is_existing_customer"],
        "has_guarantor": -0.45 * true["has_guarantor"],
    }
    total = -1.65 + 0.40 * ((true["utilization_percent"] > 80) & (true["recent_inquiries"] >= 3))
    for name, term in terms.items():
        total = total + (term if effects is None or name not in effects else effects[name] * term)
    return np.asarray(total, dtype=np.float64)


def _applicants(
    rng: np.random.Generator, rows: int, context: Mapping[str, npt.NDArray[np.int64]], interest_offset: float
) -> dict[str, Float64]:
    age = np.round(np.clip(rng.normal(42, 13, rows), 18, 85))
    employment_type = np.where(age >= 66, 3, rng.choice(3, rows, p=(0.76, 0.17, 0.07)))
    months = np.round(np.clip(np.exp(rng.normal(np.log(48), 0.9, rows)), 1, (age - 16) * 12))
    tier_income = np.array((1.0, 1.12, 1.35))[context["customer_tier"]]
    term = rng.choice((12.0, 24.0, 36.0, 48.0, 60.0), rows, p=(0.10, 0.20, 0.35, 0.20, 0.15))
    purpose = rng.choice(len(PURPOSE), rows, p=(0.34, 0.18, 0.20, 0.08, 0.10, 0.10))
    return {
        "annual_income": np.round(np.exp(rng.normal(np.log(40_000), 0.48, rows)) * tier_income, -2),
        "loan_amount": np.round(np.clip(np.exp(rng.normal(np.log(11_500), 0.6, rows)), 1_000, 60_000), -2),
        "loan_term_months": term,
        "interest_rate_percent": np.round(
            np.clip(rng.normal(9.5 + interest_offset, 2.8, rows) + 0.6 * (purpose == 5), 2, 22), 2
        ),
        "utilization_percent": np.round(100 * rng.beta(1.6, 1.9, rows), 1),
        "age_years": age,
        "employment_months": np.where(employment_type >= 2, np.nan, months),
        "credit_history_months": np.round((age - 18) * 12 * rng.beta(2.2, 1.8, rows)),
        "open_accounts": rng.poisson(6.0, rows).astype(np.float64),
        "recent_inquiries": rng.poisson(1.2, rows).astype(np.float64),
        "purpose": purpose.astype(np.float64),
        "employment_type": employment_type.astype(np.float64),
        "home_ownership": rng.choice(3, rows, p=(0.45, 0.37, 0.18)).astype(np.float64),
        "is_existing_customer": (rng.random(rows) < 0.35).astype(np.float64),
        "has_guarantor": (rng.random(rows) < 0.15).astype(np.float64),
    }


def _shift_population(true: dict[str, Float64], fault: PlantedFault, inside: npt.NDArray[np.bool_]) -> None:
    """The first feature moves by the factor, the further ones by its fourth root (a quarter as far on a log scale)."""
    for position, name in enumerate(fault.features):
        factor = fault.factor if position == 0 else fault.factor**0.25
        true[name] = move_towards(true[name], inside, factor, LOWER_BOUNDS[name])


def _logged(rng: np.random.Generator, true: Mapping[str, Float64]) -> dict[str, Float64]:
    logged = dict(true)
    for name, share in MISSING_SHARES.items():
        logged[name] = np.where(rng.random(len(true[name])) < share, np.nan, true[name])
    return logged


def _inside(segment: str, context: Mapping[str, npt.NDArray[np.int64]], rows: int) -> npt.NDArray[np.bool_]:
    if segment == OVERALL:
        return np.ones(rows, np.bool_)
    name, value = segment.split("=", 1)
    return np.asarray(context[name] == CONTEXT[name].index(value), dtype=np.bool_)


def _of_level(values: Sequence[float], codes: Float64) -> Float64:
    return np.asarray(values, dtype=np.float64)[codes.astype(np.int64)]


def _column(name: str, kind: str, values: Float64) -> pl.Series:
    if kind == "categorical":
        return pl.Series(name, LEVELS[name]).gather(values.astype(np.uint32))
    series = pl.Series(name, values).fill_nan(None)
    return series.cast(pl.Boolean) if kind == "boolean" else series
