"""Progress of a run, one bar per stage, from the events that Dagster records.

Belongs here: what an event means for a bar. Does not belong here: starting runs (see `runs`).
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from types import TracebackType
from typing import Any

from xai_assets.cli.output import console

CHECKS = "checks"
_STORED = re.compile(r"(\w+) (\d{4}-\d\d-\d\d): stored ")


@dataclass
class StageCount:
    """Days of one stage: computed in this run, or found up to date."""

    computed: int = 0
    unchanged: int = 0


@dataclass
class RunProgress:
    """Listens to one run's events; draws bars on stderr where that is a terminal and `shown`.

    stages: what happened per table, in the order of the flow.
    """

    monitor: str
    first: date
    days: int
    tables: frozenset[str]
    shown: bool = True
    stages: dict[str, StageCount] = field(default_factory=dict)
    failed_steps: list[str] = field(default_factory=list)
    _bars: Any = None
    _tasks: dict[str, Any] = field(default_factory=dict)
    _states: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> "RunProgress":
        if self.shown:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            terminal = console(sys.stderr)
            self._bars = Progress(
                TextColumn("{task.description:<26}"),
                BarColumn(bar_width=30),
                TextColumn("{task.completed:>4.0f} of {task.total:.0f} {task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=terminal,
                disable=not terminal.is_terminal,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, entry: Any) -> None:
        """Take one entry of the event log."""
        event = entry.dagster_event
        if event is None:
            self._message(entry.user_message or "")
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            self._materialized(event.step_materialization_data.materialization)
        elif event.step_key is not None:
            self._step(event.step_key.removeprefix(f"{self.monitor}__"), event)

    def _message(self, text: str) -> None:
        match = _STORED.match(text)
        if match and match[1] in self._tasks:
            done = (date.fromisoformat(match[2]) - self.first).days + 1
            self._bars.update(self._tasks[match[1]], completed=done)

    def _materialized(self, materialization: Any) -> None:
        table = materialization.asset_key.path[-1]
        count = self.stages.setdefault(table, StageCount())
        unchanged = materialization.metadata.get("unchanged")
        if unchanged is not None and unchanged.value:
            count.unchanged += 1
        else:
            count.computed += 1

    def _step(self, step: str, event: Any) -> None:
        kind = event.event_type_value
        if kind == "STEP_FAILURE":
            self.failed_steps.append(step)
        if self._bars is None or kind not in ("STEP_START", "STEP_SUCCESS", "STEP_SKIPPED", "STEP_FAILURE"):
            return
        name = step if step in self.tables else CHECKS
        if name not in self._tasks:
            total, unit = (self.days, "days") if name != CHECKS else (0, "")
            self._tasks[name] = self._bars.add_task(name, total=total, unit=unit, note="")
        if name == CHECKS:
            self._check(kind)
        elif kind == "STEP_SUCCESS":
            self._bars.update(self._tasks[name], completed=self.days)
        elif kind != "STEP_START":
            note = "waiting for upstream" if kind == "STEP_SKIPPED" else "failed"
            self._bars.update(self._tasks[name], note=note)

    def _check(self, kind: str) -> None:
        self._states[kind] += 1
        ended = sum(n for k, n in self._states.items() if k != "STEP_START")
        self._bars.update(self._tasks[CHECKS], completed=ended, total=max(ended, self._states["STEP_START"]))
