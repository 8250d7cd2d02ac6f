"""Where the drift of one feature is: in one segment, or everywhere.

Belongs here: choosing one location among segments that all show some of it. Does not belong here: severities (see
`severity`), reasons (see `causes`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from xai_assets.records import OVERALL, Float64

QUIET_SHARE = 0.25
"""Outside a segment there may be this share of its own PSI before the drift counts as spread beyond it."""

DILUTED_SHARE = 0.75
"""A change of residuals is confined to a segment when that of all requests is below this share of the segment's."""


def nested(a: str, b: str) -> bool:
    """Whether one segment holds the other: the same one, or one of them is `overall`.

    >>> nested("overall", "channel=web"), nested("channel=web", "region=north")
    (True, False)
    """
    return a == b or OVERALL in (a, b)


def localise(
    segments: Sequence[str],
    psi: Float64,
    complement: Float64,
    exceeds: npt.NDArray[np.bool_],
    noted_floor: float,
) -> str | None:
    """The one segment to which the drift is confined, `overall` where there is none, None where nothing exceeds.

    A fault in one channel shows in every region too, because a part of each region's requests came through that
    channel. What tells the true place from such shadows is everybody else: outside the true segment nothing moved.
    So a segment qualifies when it exceeds while its complement is below `noted_floor` or below a quarter of its own
    PSI. Among those that qualify the quietest complement wins, where complements that differ by less than noise
    (a quarter of the floor, a twentieth of the largest PSI) count as equal; then the largest PSI, then the name.

    Parameters
    ----------
    segments
        Names, `overall` among them.
    psi, complement
        Corrected PSI inside and outside of each segment, nats [S]; NaN where not defined.
    exceeds
        Whether the segment's score is at least noted, bool [S].
    noted_floor
        Corrected PSI from which drift is noted, nats.
    """
    if not exceeds.any():
        return None
    outside = np.nan_to_num(np.maximum(complement, 0.0), nan=np.inf)
    named = np.array([s != OVERALL for s in segments])
    confined = exceeds & named & (outside < np.maximum(noted_floor, QUIET_SHARE * psi))
    candidates = [int(i) for i in np.flatnonzero(confined)]
    if not candidates:
        return OVERALL
    step = max(noted_floor / 4, 0.05 * float(psi[candidates].max()))
    return segments[min(candidates, key=lambda i: (int(outside[i] / step), -psi[i], segments[i]))]


def localise_residuals(
    segments: Sequence[str], shift: Float64, labels: Float64, exceeds: npt.NDArray[np.bool_]
) -> str | None:
    """The one segment where residuals changed, `overall` where it is not one alone, None where nothing exceeds.

    A segment is named when it exceeds, no other value of its context does, and the other values' shift (root mean
    square over their labels) is below half of its own: with few labels a change that is everywhere passes the test
    of evidence in the largest segment only. For the same reason the shift of all requests together has to be below
    three quarters of it: what is confined to one segment is diluted by the rest. Among several the largest wins.

    Parameters
    ----------
    segments
        Names of the judged segments.
    shift, labels
        `residual_shift` and number of labels, [S].
    exceeds
        Whether the segment's score is at least noted, bool [S].
    """
    if not exceeds.any():
        return None
    where = {s: i for i, s in enumerate(segments)}
    everywhere = float(shift[where[OVERALL]]) if OVERALL in where else 0.0
    showing = [i for i, s in enumerate(segments) if exceeds[i] and s != OVERALL]
    confined = [
        i for i in showing if everywhere < DILUTED_SHARE * shift[i] and _is_alone(segments, shift, labels, exceeds, i)
    ]
    return segments[max(confined, key=lambda i: (shift[i], segments[i]))] if confined else OVERALL


def localise_rise(rise: Mapping[str, float], requests: Mapping[str, float], broken: Sequence[str]) -> str | None:
    """Where a share of broken values rose: one segment, `overall`, or None where it is broken nowhere.

    A segment is named when it is broken while the other values of its context together, weighted by their requests,
    rose by less than a quarter of its own rise. Of several the one outside of which it is quietest wins, then the
    largest rise, then the name.

    >>> localise_rise({"overall": 0.5, "hotel=a": 1.0, "hotel=b": 0.0}, {"hotel=a": 9.0, "hotel=b": 9.0}, ["hotel=a"])
    'hotel=a'
    """
    found: list[tuple[float, float, str]] = []
    for segment in broken:
        others = [s for s in siblings(list(rise), segment) if requests[s] > 0]
        if segment == OVERALL or not others:
            continue
        elsewhere = max(0.0, sum(rise[s] * requests[s] for s in others) / sum(requests[s] for s in others))
        if elsewhere < QUIET_SHARE * rise[segment]:
            found.append((round(elsewhere / rise[segment], 2), -rise[segment], segment))
    if found:
        return min(found)[2]
    return OVERALL if broken else None


def overlapping(a: str, b: str) -> bool:
    """Whether some request may belong to both segments: not so for two values of one context.

    >>> overlapping("channel=web", "region=north"), overlapping("channel=web", "channel=broker")
    (True, False)
    """
    return nested(a, b) or a.split("=", 1)[0] != b.split("=", 1)[0]


def siblings(segments: Sequence[str], segment: str) -> list[str]:
    """Other values of the same context."""
    context = segment.split("=", 1)[0]
    return [s for s in segments if s not in (segment, OVERALL) and s.split("=", 1)[0] == context]


def _is_alone(
    segments: Sequence[str], shift: Float64, labels: Float64, exceeds: npt.NDArray[np.bool_], position: int
) -> bool:
    names = set(siblings(segments, segments[position]))
    others = [i for i, s in enumerate(segments) if s in names]
    if not others or exceeds[others].any():
        return False
    elsewhere = np.sqrt(np.average(shift[others] ** 2, weights=labels[others]))
    return bool(elsewhere < shift[position] / 2)
