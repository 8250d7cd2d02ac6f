import numpy as np
import pytest

from xai_assets.decide.localise import localise, localise_residuals, siblings

SEGMENTS = ("overall", "channel=web", "channel=broker", "region=north", "region=south")
NAN = float("nan")


def _localise(psi: list[float], complement: list[float]) -> str | None:
    values = np.array(psi)
    return localise(SEGMENTS, values, np.array(complement), values >= 0.1, 0.1)


@pytest.mark.parametrize(
    "psi, complement, expected",
    [
        # A fault in broker; regions hold its requests and are its shadows.
        ([0.9, 0.0, 3.0, 0.9, 0.9], [NAN, 3.0, 0.0, 0.9, 0.9], "channel=broker"),
        # Nothing anywhere.
        ([0.0, 0.01, -0.01, 0.05, 0.0], [NAN, 0.0, 0.0, 0.0, 0.0], None),
        # Everywhere.
        ([0.9, 0.9, 0.9, 0.9, 0.9], [NAN, 0.9, 0.9, 0.9, 0.9], "overall"),
        # In both values of a context: not one place.
        ([0.9, 0.2, 1.4, 0.8, 1.0], [NAN, 1.4, 0.2, 1.0, 0.8], "channel=broker"),
        ([0.9, 0.7, 1.1, 0.8, 1.0], [NAN, 1.1, 0.7, 1.0, 0.8], "overall"),
        # Too small a part for the whole to exceed.
        ([0.02, 0.0, 0.6, 0.02, 0.02], [NAN, 0.6, 0.0, 0.02, 0.02], "channel=broker"),
        # Two quiet complements that differ by noise: the larger PSI.
        ([0.4, 0.0, 2.0, 0.3, 0.5], [NAN, 2.0, 0.012, 0.5, 0.3], "channel=broker"),
        ([0.4, 0.0, 1.0, 2.0, 0.0], [NAN, 1.0, 0.001, 0.02, 0.5], "region=north"),
        # The mix of segments changed, no segment in itself.
        ([0.3, 0.0, 0.0, 0.0, 0.0], [NAN, 0.0, 0.0, 0.0, 0.0], "overall"),
    ],
)
def test_where_the_drift_is(psi: list[float], complement: list[float], expected: str | None) -> None:
    assert _localise(psi, complement) == expected


def test_order_of_segments_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        psi, complement = rng.choice([0.0, 0.05, 0.2, 0.8, 3.0], (2, 5))
        complement[0] = NAN
        order = rng.permutation(5)
        names = [SEGMENTS[i] for i in order]
        shuffled = localise(names, psi[order], complement[order], psi[order] >= 0.1, 0.1)
        assert shuffled == localise(SEGMENTS, psi, complement, psi >= 0.1, 0.1)


LABELS = np.array([1000.0, 600.0, 400.0, 500.0, 500.0])


@pytest.mark.parametrize(
    "shift, exceeds, expected",
    [
        ([0.06, 0.0, 0.15, 0.06, 0.06], [1, 0, 1, 1, 1], "channel=broker"),
        ([0.15, 0.15, 0.15, 0.15, 0.15], [1, 1, 1, 1, 1], "overall"),
        ([0.00, 0.0, 0.15, 0.00, 0.00], [0, 0, 1, 0, 0], "channel=broker"),
        # Only the largest segment has the labels for evidence, but all show the same.
        ([0.13, 0.14, 0.12, 0.13, 0.13], [1, 1, 0, 0, 0], "overall"),
        ([0.00, 0.0, 0.00, 0.00, 0.00], [0, 0, 0, 0, 0], None),
    ],
)
def test_where_residuals_changed(shift: list[float], exceeds: list[int], expected: str | None) -> None:
    assert localise_residuals(SEGMENTS, np.array(shift), LABELS, np.array(exceeds, bool)) == expected


def test_a_segment_without_siblings_is_not_named() -> None:
    found = localise_residuals(("overall", "channel=web"), np.array([0.1, 0.2]), np.array([9.0, 4.0]), np.ones(2, bool))
    assert found == "overall"


def test_siblings() -> None:
    assert siblings(SEGMENTS, "channel=web") == ["channel=broker"]
    assert siblings(("a=1", "a=x=y", "ab=1"), "a=1") == ["a=x=y"]
