"""What `xai explain` says of a request, without a lake."""

import pytest

from xai_assets.cli import explain
from xai_assets.explain.selection import METHODS


def test_every_method_but_the_libraries_own_can_be_asked_for():
    assert set(explain.METHODS) == set(METHODS) - {"library"}
    assert len(explain.METHODS) == len(set(explain.METHODS))


@pytest.mark.parametrize("status", ["sampled_out", "pending"])
def test_attributions_made_now_are_not_said_to_be_missing(status):
    stored = explain._divergence({"status": status})
    assert "stored" in stored
    assert "below" not in stored, "none follow"
    anew = explain._divergence({"status": status, "models": {}})
    assert anew == f"{stored}; those below are made now"
