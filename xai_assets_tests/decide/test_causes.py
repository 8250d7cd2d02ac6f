from dataclasses import replace

import pytest

from xai_assets.decide.causes import InputFacts, fault_texts, input_cause

HEALTHY = InputFacts(
    psi_corrected_nats=0.01,
    severity="none",
    missing_share=0.05,
    missing_share_reference=0.05,
    outside_share=0.0,
    outside_share_reference=0.0,
    is_constant=False,
    n_effective=2_000,
    n_effective_reference=50_000,
)


@pytest.mark.parametrize(
    "change, cause",
    [
        ({}, ""),
        ({"missing_share": 0.16}, "input_fault"),
        ({"missing_share": 0.14}, ""),
        ({"outside_share": 0.11}, "input_fault"),
        ({"is_constant": True}, "input_fault"),
        ({"severity": "noted"}, "population_moved"),
        ({"severity": "critical", "outside_share": 0.9}, "input_fault"),
        ({"severity": "insufficient", "outside_share": 0.9}, ""),
        # A third of 60 requests is more by 0.1 too often.
        ({"missing_share": 0.45, "missing_share_reference": 0.33, "n_effective": 60}, ""),
        ({"missing_share": float("nan")}, ""),
        # It was so in the reference already.
        ({"missing_share": 0.9, "missing_share_reference": 0.9}, ""),
    ],
)
def test_one_field_at_a_time(change: dict, cause: str) -> None:
    assert input_cause(replace(HEALTHY, **change)) == cause


def test_nothing_known_is_no_cause() -> None:
    assert input_cause(None) == ""


def test_every_fault_is_told() -> None:
    broken = replace(HEALTHY, missing_share=0.5, outside_share=0.4, is_constant=True)
    assert fault_texts(broken) == [
        "50 % of its values are missing (reference 5 %)",
        "40 % of its values lie outside the reference range (reference 0 %)",
    ]
    assert fault_texts(replace(HEALTHY, is_constant=True)) == [
        "all of its values lie in one single cell, where the reference used several"
    ]
