"""The planted faults: what goes wrong, where, from which day, and what the platform should say about it.

Belongs here: faults as records, and their formulas on arrays of requests.
Does not belong here: drawing requests and labels (see `service`), judging what was found (see `verdict`).
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt

from xai_assets.records import OVERALL

FIRST_DATE = date(2025, 1, 1)
"""Day 1 of the monitored period."""
LABEL_DELAY_DAYS = 7
FaultKind = Literal["unit_error", "population_shift", "relation_change"]


@dataclass(frozen=True)
class PlantedFault:
    """One known fault, and the truth that the platform is judged against.

    Parameters
    ----------
    first_day
        1-based day of the monitored period from which requests are affected, up to the last day.
    features
        The features concerned, the most affected one first.
    segment
        ``overall`` or ``context=value``.
    kind, factor
        unit_error: the logged value is the true one times `factor`; labels follow the true value.
        population_shift: the distance of the true value to its lower bound is multiplied by `factor`, so it stays
        within the known range; outcomes follow.
        relation_change: the feature's term in the log-odds of default is multiplied by `factor`; inputs stay the same.
    expected_cause, expected_action
        Words of `drift_alerts.cause` and `recommendations.action` that would be right.
    """

    name: str
    first_day: int
    features: tuple[str, ...]
    segment: str
    kind: FaultKind
    factor: float
    expected_cause: str
    expected_action: str

    @property
    def visible_from_day(self) -> int:
        """First day on which any data can show the fault: a changed relation shows only in labels, which come later."""
        return self.first_day + (LABEL_DELAY_DAYS if self.kind == "relation_change" else 0)

    @property
    def first_date(self) -> date:
        return day_date(self.first_day)

    @property
    def visible_from(self) -> date:
        return day_date(self.visible_from_day)


UNIT_ERROR = PlantedFault(
    name="annual_income in thousands",
    first_day=35,
    features=("annual_income",),
    segment="channel=broker",
    kind="unit_error",
    factor=0.001,
    expected_cause="input_fault",
    expected_action="investigate_upstream",
)
POPULATION_SHIFT = PlantedFault(
    name="younger applicants, shorter in their jobs",
    first_day=45,
    features=("employment_months", "age_years", "credit_history_months"),
    segment="region=south",
    kind="population_shift",
    factor=0.3,
    expected_cause="population_moved",
    expected_action="retrain",
)
RELATION_CHANGE = PlantedFault(
    name="effect of the interest rate reversed",
    first_day=50,
    features=("interest_rate_percent",),
    segment=OVERALL,
    kind="relation_change",
    factor=-1.0,
    expected_cause="relation_changed",
    expected_action="retrain",
)
DEFAULT_FAULTS = (UNIT_ERROR, POPULATION_SHIFT, RELATION_CHANGE)


def day_date(day: int) -> date:
    """Calendar day of a 1-based day of the monitored period.

    >>> day_date(60).isoformat()
    '2025-03-01'
    """
    return FIRST_DATE + timedelta(days=day - 1)


def unit_error(value: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], factor: float) -> npt.NDArray[np.float64]:
    """The value as a client with the wrong unit logs it: times `factor` where `inside`."""
    return np.where(inside, value * factor, value)


def move_towards(
    value: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], factor: float, lower: float
) -> npt.NDArray[np.float64]:
    """Whole numbers with their distance to `lower` times `factor` where `inside`; never outside the known range."""
    return np.where(inside, np.round(lower + (value - lower) * factor), value)
