"""What a file is taken for, by its bytes before its name."""

import pickle
import random

import pytest

from xai_assets.errors import ModelError
from xai_assets.models.content import FORMATS, Content, choose_kind, is_pickle, recognise

STARTS = {"lightgbm": b"tree\n", "catboost": b"CBM1", "xgboost": b'{"learner": {', "onnx": b"\x08\x0a\x12\x08skl2onnx"}


@pytest.mark.parametrize("kind", STARTS)
def test_no_file_of_another_format_is_taken_for_a_pickle(kind):
    """Random bytes after a signature parse as a text pickle in some per cent of cases: the signature decides."""
    chance, parsed = random.Random(1), 0
    for _ in range(3000):
        raw = STARTS[kind] + chance.randbytes(200)
        parsed += is_pickle(raw)
        assert recognise("model", raw).kind == kind
    assert parsed > 0 or kind != "catboost"  # what this test is about


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickles(protocol):
    assert recognise("m.ubj", pickle.dumps({"a": [1, "b"]}, protocol)) == Content("pickle", "a pickle")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("wanted", ["auto", *FORMATS])
def test_a_configured_kind_takes_no_other(kind, wanted):
    content = Content(kind, FORMATS[kind][0])
    if kind == "pickle":
        with pytest.raises(ModelError, match="is a pickle and is refused"):
            choose_kind("m", content, wanted, trusted=False)
        assert choose_kind("m", content, wanted, trusted=True) == "pickle"
    elif kind == "torch" and wanted in ("auto", "torch"):
        with pytest.raises(ModelError, match="is refused: a PyTorch archive can run code"):
            choose_kind("m", content, wanted, trusted=False)
        assert choose_kind("m", content, wanted, trusted=True) == "torch"
    elif wanted in ("auto", kind):
        assert choose_kind("m", content, wanted, trusted=False) == kind
    else:
        with pytest.raises(ModelError, match=f"is not {FORMATS[wanted][0]}.*kind: {kind}"):
            choose_kind("m", content, wanted, trusted=False)
