"""Why one request scored as it did, in both models, and why they differ.

Belongs here: finding the request and printing it. Does not belong here: computing attributions. Stored ones are shown;
with `--method` they are asked of the flow instead, and nothing is stored: a background that the method needs is the
stored one, or else drawn in memory from the days replayed by now.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_assets.cli.monitors import configured_names, load_config, open_lake
from xai_assets.cli.output import Output
from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.records import EXPERIMENTAL, PRODUCTION

if TYPE_CHECKING:
    from xai_assets.lake.store import Lake


METHODS = ("treeshap", "treeshap_interventional", "linear", "integrated_gradients", "permutation", "kernel", "lime")
"""Those of `explain.METHODS` that a person may ask for; named here so that `xai --help` imports nothing."""


@dataclass(frozen=True)
class _Found:
    config: MonitorConfig
    facts: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which request."""
    parser.add_argument("request_id", metavar="REQUEST_ID", help="as in the log")
    parser.add_argument(
        "--monitor", metavar="MONITOR", help="a name, or the path of a defs.yaml (default: look in all)"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="explain the request anew by this method (default: show what is stored)",
    )


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Print features, outputs, attributions of both models and their difference δ, largest |δ| first."""
    lake = open_lake()
    names = [arguments.monitor] if arguments.monitor else [n for n in configured_names() if n in lake.monitors()]
    found = _find(lake, names, arguments.request_id)
    facts = found.facts
    if arguments.method:
        facts |= _explained_anew(lake, found, arguments.method)
    output.say(f"{facts['request_id']} of {found.config.name}, {facts['requested_at']:%Y-%m-%d %H:%M:%S} UTC")
    context = ", ".join(f"{k}={v}" for k, v in facts["context"].items())
    if context:
        output.say(f"Context: {context}")
    _show_models(facts, output)
    if "models" in facts:
        _show_attributions(facts, output)
    else:
        _show_features(facts, output)
    output.document(facts)
    return 0


def _find(lake: "Lake", names: list[str], request_id: str) -> _Found:
    from xai_assets.lake.queries import request_explanation

    for name in names:
        config = load_config(name)
        facts = request_explanation(lake, config, request_id)
        if facts is not None:
            return _Found(config, facts)
    shown = ", ".join(Path(n).parent.name if "/" in n else n for n in names) or "none is stored yet"
    raise LakeError(
        f"request '{request_id}' is in no stored day",
        found=f"monitors looked at: {shown}",
        next_step="check the id, or run its day: xai run MONITOR --from DAY --to DAY",
        nothing_written=False,
    )


def _explained_anew(lake: "Lake", found: _Found, method: str) -> dict[str, Any]:
    """What `request_explanation` gives of both models and their difference, by another method."""
    from xai_assets.explain.additivity import additivity_error
    from xai_assets.flow.attribution import explain_request
    from xai_assets.flow.monitor import Monitor

    monitor, names = Monitor(found.config, lake), found.config.feature_names
    models: dict[str, Any] = {}
    for role in (PRODUCTION, EXPERIMENTAL):
        explained, made_by = explain_request(monitor, role, found.facts["features"], method)
        models[role] = {
            "model_version": monitor.model(role).version,
            "base_value": float(explained.base_value[0]),
            "margin": float(explained.margin[0]),
            "attributions": dict(zip(names, explained.values[0].tolist(), strict=True)),
            "additivity_error": additivity_error(explained),
            **made_by,
        }
    mine, other = models[EXPERIMENTAL], models[PRODUCTION]
    return {
        "models": models,
        "difference": {n: mine["attributions"][n] - other["attributions"][n] for n in names},
        "base_difference": mine["base_value"] - other["base_value"],
    }


def _show_models(facts: Mapping[str, Any], output: Output) -> None:
    models = facts.get("models", {})
    rows = [
        [role, models.get(role, {}).get("model_version"), facts[f"{role}_output"], models.get(role, {}).get("margin")]
        for role in (PRODUCTION, EXPERIMENTAL)
    ]
    output.table(["model", "version", "output", "margin"], rows)
    output.say(f"Difference of the outputs: {facts['delta']:+.4f}{_divergence(facts)}")
    if facts["label"] is not None:
        output.say(f"Label in the log: {facts['label']:g}")


def _explainer(facts: Mapping[str, Any]) -> str:
    """What was asked for by `--method`, and how far its attributions are from adding up to the margin."""
    made = [facts["models"][role] for role in (PRODUCTION, EXPERIMENTAL)]
    if "explainer" not in made[0]:
        return ""
    error = max(m["additivity_error"] for m in made)
    return f", by {made[0]['explainer']}, not stored; they miss the margin by {error:.2g} relative"


def _divergence(facts: Mapping[str, Any]) -> str:
    anew = "; those below are made now" if "models" in facts else ""  # a stored explanation has another status
    if facts["status"] == "sampled_out":
        return f"; the day was sampled and this request not drawn, so no attributions are stored of it{anew}"
    if facts["status"] == "pending":
        return f"; its attributions are not stored yet{anew}"
    kind = facts["divergence_kind"] if facts["is_divergent"] else "not divergent"
    return f" ({kind}); explained with probability {facts['inclusion_probability']:.3g}"


def _show_attributions(facts: Mapping[str, Any], output: Output) -> None:
    difference = facts["difference"]
    attributions = {r: facts["models"][r]["attributions"] for r in (PRODUCTION, EXPERIMENTAL)}
    rows = [
        [name, _value(facts["features"].get(name)), attributions[PRODUCTION][name], attributions[EXPERIMENTAL][name], d]
        for name, d in sorted(difference.items(), key=lambda item: -abs(item[1]))
    ]
    bases = [facts["models"][r]["base_value"] for r in (PRODUCTION, EXPERIMENTAL)]
    rows.append(["(base value)", "", *bases, facts["base_difference"]])
    output.table(
        ["feature", "value", "production φ", "experimental φ", "δ"],
        rows,
        f"Attributions, margin units{_explainer(facts)}",
    )


def _show_features(facts: Mapping[str, Any], output: Output) -> None:
    output.table(["feature", "value"], [[n, _value(v)] for n, v in facts["features"].items()])


def _value(value: Any) -> str:
    if value is None:
        return "(missing)"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
