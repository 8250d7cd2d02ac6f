"""The benchmark's streams, small: a planted fault is found on its first day, a stationary stream keeps its budget."""

import pytest

from benchmarks.detection.days import Stream
from benchmarks.detection.ours import Calibrated
from benchmarks.detection.streams import GAP, HEALTHY_DAYS, REFERENCE_DAYS, UNIT, Fault, Service

pytestmark = pytest.mark.slow
FIRST_FAULTY_DAY = REFERENCE_DAYS + HEALTHY_DAYS + 1


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream(Service(seed=0, requests_per_day=2_000))


@pytest.fixture(scope="module")
def detector(stream: Stream) -> Calibrated:
    return Calibrated(stream)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(UNIT, "large", "region=north", ("income",), 3.0),
        Fault(UNIT, "large", "overall", ("tenure",), 0.1),
        Fault(GAP, "large", "channel=app", ("score_a",), 0.6),
    ],
    ids=lambda fault: f"{fault.kind} {fault.place}",
)
def test_a_fault_is_found_on_its_first_day_in_its_feature_and_place(
    stream: Stream, detector: Calibrated, fault: Fault
) -> None:
    before = [stream.day(n) for n in range(1, FIRST_FAULTY_DAY)]
    healthy = detector.judge(stream.day(FIRST_FAULTY_DAY), before)[Calibrated.name]
    found = detector.judge(stream.day(FIRST_FAULTY_DAY, fault, 1), before)[Calibrated.name]
    assert not healthy.alarm
    assert found.alarm
    assert (found.feature, found.segment) == (fault.features[0], fault.place)


def test_a_stationary_stream_keeps_the_alarm_budget(stream: Stream, detector: Calibrated) -> None:
    numbers = range(REFERENCE_DAYS + 1, REFERENCE_DAYS + 31)
    verdicts = [detector.judge(stream.day(n), [stream.day(i) for i in range(1, n)]) for n in numbers]
    budget = detector.drift.alarm_budget
    assert sum(v[Calibrated.name].alarm for v in verdicts) <= 1.5 * 30 * budget.alarms / budget.per_days
