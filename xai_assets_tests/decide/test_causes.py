from dataclasses import replace

import pytest

from xai_assets.decide.causes import InputFacts, VersionFacts, effect_of, effect_text, fault_texts, input_cause

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
        # With calibrated evidence behind it a smaller rise of nulls and unknown categories is enough, of numbers not.
        ({"severity": "noted", "missing_share": 0.08}, "input_fault"),
        ({"severity": "noted", "missing_share": 0.065}, "population_moved"),
        ({"severity": "noted", "outside_share": 0.05, "kind": "categorical"}, "input_fault"),
        ({"severity": "noted", "outside_share": 0.05, "kind": "numeric"}, "population_moved"),
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


@pytest.mark.parametrize(
    "kind, outside, stuck",
    [
        ("", "lie outside the reference range", "lie in one single cell"),
        ("numeric", "lie outside the reference range", "lie in one single cell"),
        ("categorical", "are categories that the model does not know", "are one category"),
        ("boolean", "are values that the reference never had", "are the same"),
    ],
)
def test_the_kind_decides_the_words(kind: str, outside: str, stuck: str) -> None:
    unseen = replace(HEALTHY, kind=kind, outside_share=0.12)
    assert fault_texts(unseen) == [f"12 % of its values {outside} (reference 0 %)"]
    (text,) = fault_texts(replace(HEALTHY, kind=kind, is_constant=True))
    assert text.startswith("it is stuck")
    assert stuck in text


@pytest.mark.parametrize(
    "verdict, effect, said",
    [
        (
            "data",
            "data",
            "came with the requests, not with the new model version: 0.31 nats from the rows, 0.42 nats on",
        ),
        ("model", "model", "Most of it came with the new model version: 0.42 nats on the same rows, 0.31 nats from"),
        ("both", "both", "with the requests and with the new model version: 0.31 nats from the rows, 0.42 nats on the"),
        ("none", "data", ""),
    ],
)
def test_what_a_version_changed_is_told(verdict: str, effect: str, said: str) -> None:
    facts = VersionFacts(data_effect_nats=0.31, model_effect_nats=0.42, verdict=verdict)
    assert effect_of(facts) == effect
    assert said in effect_text(facts)
    assert bool(effect_text(facts)) == bool(said)


def test_without_another_version_it_was_the_data() -> None:
    assert (effect_of(None), effect_text(None)) == ("data", "")
