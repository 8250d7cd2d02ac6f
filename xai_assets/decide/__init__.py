"""Pure decisions: scores and history in; severities, alerts and recommendations out, each with its reasons.

Does not belong here: formulas (see `stats`), tables (see `lake`), sensors and runs (see `orchestration`).
"""
