"""ONNX models, run by onnxruntime.

Belongs here: the session, its inputs as columns, and which of its outputs is the prediction.
Does not belong here: converting models to ONNX, attributions (see `explain`).

Inputs: one matrix [n, d] without names, or one column [n, 1] per feature, whose names are the features'.
Inputs of whole numbers (int64) take neither missing nor fractional values.
Outputs: a label and the probabilities of two classes (a converted classifier), or one number per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import (
    Loaded,
    damaged,
    first_line,
    library,
    log_odds,
    logistic,
    one_output,
    rejected,
    several_outputs,
)
from xai_assets.records import FeatureSpec, Float32, Float64

FLOAT32_FLOOR = 1e-7
"""The nearest a float32 probability gets to 1 is 1 − 6e-8."""
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
WHAT, WRITER = "an ONNX model", "onnx.save"


def load(location: str, raw: bytes) -> Loaded:
    """A session over a file's bytes. Raises ModelError where it is damaged, newer, or its ports do not fit."""
    runtime = library("onnxruntime", "onnx", location)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base but Exception
        if "nsupported model IR version" in str(error) or "is under development" in str(error):
            raise _newer(location, runtime.__version__, error) from error
        raise damaged(location, WHAT, WRITER, error) from error
    names, count = _inputs(location, session)
    pick, classifier = _output(location, session)
    return Loaded(
        kind="onnx",
        native=session,
        bind=lambda features: _bind(location, session, features, names is not None, pick, classifier),
        objective="an ONNX classifier" if classifier else "an ONNX output",
        is_classifier=True if classifier else None,
        n_features=count,
        feature_names=names,
        notes=(f"model {location} gives probabilities as float32, so log-odds beyond ±16 are cut off",)
        if classifier
        else (),
    )


@dataclass(frozen=True, eq=False)
class SessionPredictor:
    """Runs the session. pick: position of the output; classifier: it holds the probabilities of two classes."""

    session: Any
    named: bool
    pick: int
    classifier: bool

    def margin(self, X: Float32) -> Float64:
        found = self._run(X)
        return log_odds(found, FLOAT32_FLOOR) if self.classifier else found

    def value(self, X: Float32) -> Float64:
        return self._run(X)

    def probability(self, X: Float32) -> Float64:
        found = self._run(X)
        return found if self.classifier else logistic(found)

    def _run(self, X: Float32) -> Float64:
        ports = self.session.get_inputs()
        columns = [X[:, i : i + 1] for i in range(X.shape[1])] if self.named else [X]
        feed = {p.name: _as_port(p, c) for p, c in zip(ports, columns, strict=True)}
        try:
            found = self.session.run([self.session.get_outputs()[self.pick].name], feed)[0]
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise rejected("ONNX", error) from error
        if not self.classifier:
            return one_output(found, len(X), "of ONNX")
        if isinstance(found, list):  # one mapping from class to probability per row
            found = np.array([list(row.values()) for row in found])
        return one_output(found[:, 1], len(X), "of ONNX")


def _as_port(port: Any, columns: Float32) -> npt.NDArray[Any]:
    """Columns in the port's type. Raises ModelError for what a whole number cannot hold, which a cast would change."""
    if port.type == "tensor(int64)":
        # NaN compares as false, so it is odd too.
        odd = ~((np.abs(columns) < 2.0**63) & (np.trunc(columns) == columns))
        if odd.any():
            raise ModelError(
                "the ONNX model refuses these rows",
                expected=f"whole numbers for its int64 input '{port.name}'",
                found=f"{columns[odd][0]} among {int(odd.sum())} other values",
                next_step="correct the values in the source, or convert the model with float inputs",
            )
    return np.ascontiguousarray(columns, _TYPES[port.type])


def _inputs(location: str, session: Any) -> tuple[tuple[str, ...] | None, int | None]:
    """Feature names (None: one matrix) and their number (None: the model does not say)."""
    ports = session.get_inputs()
    odd = [f"{p.name}: {p.type}" for p in ports if p.type not in _TYPES]
    if odd:
        raise ModelError(
            f"model {location} has inputs that are not numbers",
            expected="float, double or int64 tensors",
            found=", ".join(odd[:10]),
            next_step="convert the model without its text encoders, and configure the levels of categorical features",
        )
    if len(ports) == 1 and ports[0].shape[1:] != [1]:
        width = ports[0].shape[1] if len(ports[0].shape) == 2 else None
        return None, width if isinstance(width, int) else None
    return tuple(p.name for p in ports), len(ports)


def _output(location: str, session: Any) -> tuple[int, bool]:
    """Position of the output that is the prediction, and whether it holds the probabilities of two classes."""
    outputs = session.get_outputs()
    if len(outputs) == 1 and outputs[0].type in ("tensor(float)", "tensor(double)"):
        if isinstance(width := (outputs[0].shape or [0])[-1], int) and len(outputs[0].shape) == 2 and width > 1:
            raise several_outputs(location, f"output '{outputs[0].name}' of width {width}")
        return 0, False
    if len(outputs) == 2 and outputs[0].type in ("tensor(int64)", "tensor(string)"):
        if outputs[1].type.startswith("seq(map(") or (outputs[1].shape or [0])[-1] == 2:
            return 1, True
        raise several_outputs(location, f"probabilities of shape {outputs[1].shape}")
    raise several_outputs(location, ", ".join(f"{o.name}: {o.type} {o.shape}" for o in outputs))


def _bind(
    location: str, session: Any, features: Sequence[FeatureSpec], named: bool, pick: int, classifier: bool
) -> SessionPredictor:
    """The predictor, tried on two rows: shapes and the number of classes may be open until a model runs."""
    predictor = SessionPredictor(session, named, pick, classifier)
    probe = np.zeros((2, len(features)), np.float32)
    if classifier and session.get_outputs()[pick].type.startswith("seq("):
        ports = session.get_inputs()
        columns = [probe[:, i : i + 1] for i in range(len(features))] if named else [probe]
        feed = {p.name: c.astype(_TYPES[p.type]) for p, c in zip(ports, columns, strict=True)}
        row = session.run([session.get_outputs()[pick].name], feed)[0][0]
        if len(row) != 2:
            raise several_outputs(location, f"classes {', '.join(str(c) for c in row)}")
    predictor.value(probe)
    return predictor


def _newer(location: str, installed: str, error: Exception) -> ModelError:
    return ModelError(
        f"model {location} was written for a newer onnxruntime than the installed one",
        expected=f"an IR version and opset that onnxruntime {installed} reads",
        found=first_line(str(error).rsplit(") ", 1)[-1]),
        next_step="upgrade onnxruntime here, or convert the model for an older opset",
    )
