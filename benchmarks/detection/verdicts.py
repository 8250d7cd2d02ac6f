"""What a detector says of one day.

Belongs here: the record that all detectors answer with. Does not belong here: how they come to it.
"""

from dataclasses import dataclass
from typing import Protocol

from benchmarks.detection.days import Day


@dataclass(frozen=True)
class Verdict:
    """alarm: whether somebody is called. feature, segment: what is named first; "" where nothing is, or none can be."""

    alarm: bool
    feature: str = ""
    segment: str = ""


class Detector(Protocol):
    """Judges a day after the days before it."""

    def judge(self, day: Day, before: list[Day], /) -> dict[str, Verdict]:
        """One verdict per variant of the detector. before: the days before, oldest first, from the first of all."""
        ...
