"""The starter `defs.yaml`, for `dg scaffold defs` and `xai init`.

Belongs here: the text of the file. Does not belong here: looking at a user's logs (see `lake.profile`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

STARTER = """\
type: xai_assets.DriftMonitor
attributes:
  source:
    path: data/{name}/logs/{{date}}.parquet   # a glob or URI; {{date}} is the day; Parquet, CSV or JSONL, also s3://
  columns:
    request_id: request_id
    requested_at: requested_at
  features:
    numeric: [amount]                # names as the models know them
    # categorical: [purpose]         # or {{purpose: [car, home]}} where the model file does not hold the levels
    # boolean: [returning]
  context: []                        # columns whose values are segments, e.g. [region, channel]
  models:
    production: models/{name}/production.ubj       # XGBoost, LightGBM, CatBoost, skops, ONNX, PyTorch, MLflow
    experimental: models/{name}/experimental.ubj
  reference:                         # days that define normal
    start_date: 2025-01-01
    end_date: 2025-01-28
  # explanation:
  #   budget_rows_per_day: 2000      # default: every request for tree and linear models, else 2,000
  #   targets: {{coverage: 0.95, median_ms: 50, p95_ms: 200, stability: 0.8, error_rate: 0.01}}
"""


def starter_yaml(name: str) -> str:
    """The commented starter for a monitor called `name`."""
    return STARTER.format(name=name)


def filled_yaml(attributes: Mapping[str, object], comments: Sequence[str] = ()) -> str:
    """A `defs.yaml` with these attributes, comments first; lists of scalars stay on one line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def sequence(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)

    for kind in (list, tuple):
        Dumper.add_representer(kind, sequence)
    body = {"type": "xai_assets.DriftMonitor", "attributes": dict(attributes)}
    lines = [f"# {c}" for c in comments]
    return "\n".join([*lines, yaml.dump(body, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)])
