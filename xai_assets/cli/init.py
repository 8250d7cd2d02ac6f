"""Look at log files and two models, and write a filled-in defs.yaml for them.

Belongs here: reading what `proposal` judges, checking the result as it will be loaded, writing it.
"""

import argparse
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from xai_assets.cli.logfiles import LogFiles, find_logs
from xai_assets.cli.monitors import FILE, defs_folder
from xai_assets.cli.output import Output
from xai_assets.cli.proposal import ModelFeature, Proposal, Seen, propose, set_reference
from xai_assets.config import FORMATS, NAME_PATTERN, MonitorConfig, is_uri
from xai_assets.errors import ConfigError, ModelError, SourceError
from xai_assets.lake.location import project_root
from xai_assets.records import MODEL_ROLES

GENERIC_FOLDERS = ("logs", "log", "data", "input", "parquet", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, models and where the result goes."""
    parser.add_argument("--logs", nargs="+", required=True, metavar="FILE", help="a log file, several, or a glob")
    parser.add_argument(
        "--production", required=True, metavar="MODEL", help="model in service: a file, or an MLflow URI"
    )
    parser.add_argument("--experimental", required=True, metavar="MODEL", help="its shadow")
    parser.add_argument("--name", help="name of the monitor (default: from the files' folder)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for NAME/defs.yaml (default: xai_assets/defs)")
    parser.add_argument(
        "--log-format", choices=sorted(set(FORMATS.values())), help="where the file's ending does not tell"
    )
    parser.add_argument(
        "--rename", action="append", default=[], metavar="FEATURE=COLUMN", help="a feature's column; may be repeated"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing defs.yaml")


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Propose, check, write, and say what was assumed."""
    logs = find_logs(arguments.logs)
    name = arguments.name or _default_name(logs)
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"'{name}' cannot name a monitor", expected="lower-case letters, digits and _")
    target = (arguments.out or defs_folder()) / name / FILE
    if target.exists() and not arguments.force:
        raise ConfigError(f"{target} exists", next_step="choose another --name, or replace it with --force")
    proposal = _propose(arguments, logs)
    config = MonitorConfig.from_mapping(name, proposal.attributes, project_root())
    _check_models(config, proposal)
    text = _yaml(proposal)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    _show(target, text, proposal, config, logs, output)
    return 0


def _propose(arguments: argparse.Namespace, logs: LogFiles) -> Proposal:
    from xai_assets.lake.source import profile_source

    profile = profile_source(str(logs.files[0]), arguments.log_format)
    if not profile.rows:
        raise SourceError(f"{logs.files[0]} has no rows", next_step="give a day with requests")
    seen = Seen(
        pattern=_shown(logs.pattern),
        format=profile.format,
        rows=profile.rows,
        columns=profile.columns,
        features=_features(arguments.production, arguments.experimental),
        production=_shown(arguments.production),
        experimental=_shown(arguments.experimental),
        renames=_renames(arguments.rename),
    )
    proposal = propose(seen, logs.days)
    if not logs.days:
        set_reference(proposal, *_time_range(logs, profile.format, proposal.attributes["columns"]["requested_at"]))
    return proposal


def _features(production: str, experimental: str) -> tuple[ModelFeature, ...]:
    """Features of both models: the experimental one's first, because it is the one to come."""
    found: dict[str, ModelFeature] = {}
    for path in (experimental, production):
        for feature in _features_of(path):
            if not found.get(feature.name, ModelFeature("", "")).kind:
                found[feature.name] = feature
    return tuple(found.values())


def _features_of(path: str) -> list[ModelFeature]:
    """Raises ModelError where the model is missing, damaged, a pickle, or has no feature names."""
    from xai_assets.models.artifact import inspect_features

    return [ModelFeature(name, kind) for name, kind in inspect_features(path)]


def _renames(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for feature, sign, column in pairs:
        if not (feature and sign and column):
            raise ConfigError("--rename is wrong", expected="FEATURE=COLUMN", found=f"{feature}{sign}{column}")
    return {feature: column for feature, _, column in pairs}


def _time_range(logs: LogFiles, format: str, column: str) -> tuple[date, date]:
    """First and last day of the requests, from the one column of times."""
    import polars as pl

    from xai_assets.lake.times import times_as_utc

    scan: Any = {"parquet": pl.scan_parquet, "csv": pl.scan_csv, "jsonl": pl.scan_ndjson}[format]
    found: list[Any] = []
    for file in logs.files:
        times = times_as_utc(scan(file).select(column).collect()[column], "UTC").drop_nulls()
        if len(times):
            found += [times.dt.date().min(), times.dt.date().max()]
    if not found:
        raise SourceError(f"no value of '{column}' is a time", next_step="check the column")
    return min(found), max(found)


def _check_models(config: MonitorConfig, proposal: Proposal) -> None:
    """Load both models as the platform will. Unknown levels are left for the user; anything else is refused."""
    from xai_assets.models.artifact import load_model

    paths = {"production": config.models.production.path, "experimental": config.models.experimental.path}
    for role in MODEL_ROLES:
        try:
            load_model(config.resolve(paths[role]), features=config.features)
        except ModelError as error:
            if "levels" not in error.what:
                raise
            proposal.not_found.append(f"{error.what}; {error.next_step}")


def _yaml(proposal: Proposal) -> str:
    from xai_assets.starter import filled_yaml

    plain = json.loads(json.dumps(proposal.attributes, default=str))
    plain["reference"] = {k: date.fromisoformat(v) for k, v in plain["reference"].items()}
    for key in ("request_id", "requested_at"):
        if plain["columns"].get(key) == key:  # the default
            del plain["columns"][key]
    if not plain["columns"]:
        del plain["columns"]
    text = filled_yaml(plain, ["Written by 'xai init'; check the reference days and the context columns."])
    return re.sub(r"reference:\n +(start_date: \S+)\n +(end_date: \S+)", r"reference: {\1, \2}", text)


def _shown(path: str) -> str:
    """Relative to the project where the file is in it, else absolute: paths in defs.yaml start at the project."""
    if is_uri(path):
        return path
    absolute, root = Path(path).absolute(), project_root()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else absolute.as_posix()


def _default_name(logs: LogFiles) -> str:
    parts = [p for p in Path(logs.pattern).parent.parts if "{" not in p and "*" not in p and "=" not in p]
    folder = next((p for p in reversed(parts) if p.lower() not in GENERIC_FOLDERS), "")
    name = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
    return name if NAME_PATTERN.fullmatch(name) else "my_monitor"


def _show(target: Path, text: str, proposal: Proposal, config: MonitorConfig, logs: LogFiles, output: Output) -> None:
    output.say(f"Wrote {target}:\n")
    output.say(text)
    for title, lines in (("Assumed:", proposal.assumed), ("Not found:", proposal.not_found)):
        if lines:
            output.say(title)
            for line in lines:
                output.say(f"  - {line}")
    last = logs.days[-1] if logs.days else config.reference.end_date
    shown = config.name if target.parent.parent == defs_folder() else str(target)
    output.say(f"Next: xai run {shown} --from {config.reference.start_date} --to {last}")
    output.document(
        {
            "monitor": config.name,
            "file": str(target),
            "attributes": proposal.attributes,
            "assumed": proposal.assumed,
            "not_found": proposal.not_found,
        }
    )
