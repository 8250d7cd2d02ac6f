"""What a stored partition was made from, as one hash per partition, and what it would be made from now.

Belongs here: which inputs count for which table. Equal hashes mean equal results, so a stage whose stored hash
equals the expected one has nothing to do, and a day whose hashes differ is stale.
Does not belong here: deciding what to run (see `decide.staleness`), file formats.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cached_property
from importlib.metadata import version

from xai_assets.config import MonitorConfig
from xai_assets.explain.selection import METHODS, choose_method
from xai_assets.flow.budget import explanation_budget
from xai_assets.flow.monitor import Monitor
from xai_assets.lake.ingest_report import parse_report
from xai_assets.lake.source import Which, files_of_day, source_fingerprint
from xai_assets.models.model import Model
from xai_assets.records import MODEL_ROLES, IngestReport, SourceFile

STAGE_VERSION = {
    "replay_log": "1",
    "labels": "1",
    "divergence_set": "1",
    "attributions": "3",
    "explanation_background": "2",
    "explanation_quality": "2",
    "reference_profile": "2",
    "attribution_histograms": "2",
    "feature_statistics": "2",
    "drift_calibration": "1",
    "drift_scores": "2",
    "divergence_slices": "1",
    "drift_slices": "1",
    "slice_reference": "1",
    "explanation_shift": "1",
    "residual_histograms": "1",
    "label_calibration": "1",
    "label_scores": "2",
    "error_stream": "1",
    "concept_drift": "1",
    "version_effects": "1",
    "drift_alerts": "2",
    "recommendations": "1",
}
"""Raised by hand when a stage would compute something else from the same input."""

DAILY_TABLES = (
    "replay_log",
    "labels",
    "divergence_set",
    "production_attributions",
    "experimental_attributions",
    "explanation_quality",
    "attribution_histograms",
    "feature_statistics",
    "drift_scores",
    "divergence_slices",
    "drift_slices",
    "explanation_shift",
    "residual_histograms",
    "label_scores",
    "error_stream",
    "concept_drift",
    "version_effects",
    "drift_alerts",
    "recommendations",
)

SLICE_WINDOW_DAYS = 7
"""Days up to and with a day in which its slices are looked for."""

_GRADED_BY = (
    *("drift.windows_days", "drift.effect_floors", "drift.min_effective_rows", "drift.min_importance_share"),
    "drift.match_weekday",
)
"""What scores and their severities follow from; the alarm budget comes in through the calibration."""
_FILES_OF: dict[str, Which] = {"replay_log": "source", "labels": "labels"}


def quarantine_share(report: IngestReport) -> float:
    """Share of a day's own rows (those of other days left out) that were unusable, 0–1."""
    own = report.rows_read - report.rows_other_days
    return report.rows_quarantined / own if own else 0.0


def combine(*parts: str) -> str:
    """One hash (16 hex digits) of an ordered list of texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Provenance:
    """Expected and stored provenance of one monitor's partitions; footers are read once and remembered.

    Make a new one per run: what it remembered does not follow changes made by others. `forget` after writing.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._stored: dict[tuple[str, date | None], dict[str, str]] = {}
        self._files: dict[tuple[str, date], tuple[SourceFile, ...]] = {}
        self._explainers: dict[str, str] = {}

    def footer(self, table: str, day: date | None) -> dict[str, str]:
        """Metadata of a stored partition; empty where there is none."""
        key = (table, day)
        if key not in self._stored:
            lake, name = self.monitor.lake, self.monitor.name
            self._stored[key] = lake.metadata(table, name, day) if lake.exists(table, name, day) else {}
        return self._stored[key]

    def stored(self, table: str, day: date | None) -> str | None:
        return self.footer(table, day).get("provenance")

    def content(self, table: str, day: date | None) -> str | None:
        """Hash of a stored table's rows: what is computed from them does not change when only the files did."""
        return self.footer(table, day).get("content_hash")

    def is_refused(self, day: date) -> bool:
        """Whether more of the day's rows were unusable than `source.quarantine_limit_share` allows."""
        footer = self.footer("replay_log", day)
        share = quarantine_share(parse_report(footer["report"])) if "report" in footer else 0.0
        return share > self.monitor.config.source.quarantine_limit_share

    def forget(self, table: str, day: date | None) -> None:
        self._stored.pop((table, day), None)

    def files(self, day: date, which: Which = "source") -> tuple[SourceFile, ...]:
        if (which, day) not in self._files:
            self._files[which, day] = files_of_day(self.monitor.config, day, which)
        return self._files[which, day]

    def expected(self, table: str, day: date) -> str | None:
        """What the partition would carry if made now; None while something it needs is not there yet."""
        config = self.monitor.config
        if table in ("replay_log", "labels"):
            return self._from_files(table, day)
        if table == "divergence_set":
            return self._from_stored(table, ["divergence"], self._divergence_inputs(day), self._sampling)
        if table.endswith("_attributions"):
            role = table.removesuffix("_attributions")
            upstream = [self.stored("divergence_set", day), self.monitor.model_hashes[role]]
            return self._from_stored("attributions", ["features"], upstream, [self.explainer_identity(role)])
        if table == "explanation_quality":
            return self._quality(day)
        if table == "attribution_histograms":
            upstream = [self.reference_hash(), *(self.stored(f"{r}_attributions", day) for r in MODEL_ROLES)]
            return self._from_stored(table, ["context", "derived_context"], upstream)
        if table == "feature_statistics":
            return self._from_stored(table, [], [self.reference_hash(), self.comparable("attribution_histograms", day)])
        if table == "drift_scores":
            days = window_days(day, max(config.drift.windows_days), config.first_date)
            upstream = [self._calibration(), self.comparable("attribution_histograms", day)]
            if config.drift.match_weekday:
                days = (*config.reference_days, *days)
            return self._from_stored(
                table, list(_GRADED_BY), upstream, self._comparable_list("attribution_histograms", days)
            )
        if table in ("divergence_slices", "drift_slices"):
            return self._slices(table, day)
        if table == "explanation_shift":
            return self._explanation_shift(day)
        if table == "residual_histograms":
            return self._residuals(day)
        if table == "label_scores":
            return self._label_scores(day)
        if table == "error_stream":
            return self._errors(day)
        if table == "concept_drift":
            return self._concept_drift(day)
        if table == "version_effects":
            return self._version_effects(day)
        days = all_days(config.first_date, day)
        if table == "drift_alerts":
            scores = self._stored_list("drift_scores", days) + self._stored_list("label_scores", days)
            if config.roles_with_previous:
                scores += self._stored_list("version_effects", days)
            return self._from_stored(table, ["drift", "reference"], [self.stored("drift_scores", day)], scores)
        if table == "recommendations":
            rates = self._stored_list("attribution_histograms", days)
            return self._from_stored(table, ["remediation"], [self.stored("drift_alerts", day)], rates)
        raise KeyError(table)

    @cached_property
    def reference_identity(self) -> str:
        """What the reference profile is defined by. Late changes to reference days do not change it: edges are
        made once, and made anew only when the definition of normal changes or a person asks for it."""
        sections = ("reference", "features", "context", "derived_context", "divergence")
        top = str(self.monitor.config.drift.top_segment_values)
        hashes = self.monitor.model_hashes
        return combine(
            STAGE_VERSION["reference_profile"],
            STAGE_VERSION["attributions"],
            self.monitor.config.fingerprint(*sections),
            top,
            *(hashes[r] for r in MODEL_ROLES),
            *(self.explainer_identity(r) for r in MODEL_ROLES),
        )

    def explainer_identity(self, role: str) -> str:
        """What a role's attributions follow from besides artifact and requests: method, its version and that of the
        library it calls, seed where it draws, background where it needs one. No explainer is built for it.

        While a background is still to be made, this is an identity that no partition carries: the day is due.
        """
        if role not in self._explainers:
            self._explainers[role] = self._explainer_of(self.monitor.model(role))
        return self._explainers[role]

    def _explainer_of(self, model: Model) -> str:
        settings = self.monitor.config.explanation
        method = METHODS[choose_method(model, settings.method)]
        background = self.background_hash() or "to be made" if method.needs_background else "-"
        seed = str(settings.seed) if method.draws else "-"
        return " ".join((method.name, method.full_version(model), background, seed))

    @cached_property
    def background_identity(self) -> str:
        """What the background of explainers is defined by. As with the reference profile, late changes to the days it
        was drawn from do not change it."""
        settings = self.monitor.config.explanation
        return combine(
            STAGE_VERSION["explanation_background"],
            self.monitor.config.fingerprint("reference", "features"),
            str(settings.background_rows),
            str(settings.seed),
        )

    def background_hash(self) -> str | None:
        """Hash of the stored background, if it is the one the configuration asks for."""
        footer = self.footer("explanation_background", None)
        return footer.get("background_hash") if footer.get("provenance") == self.background_identity else None

    def reference_hash(self) -> str | None:
        """Hash of the stored profile, if it is the one the configuration asks for."""
        footer = self.footer("reference_profile", None)
        return footer.get("profile_hash") if footer.get("provenance") == self.reference_identity else None

    def residual_reference_days(self) -> tuple[date, ...]:
        """Days on which the labels of the reference days became complete."""
        delay = self.monitor.config.label_delay_days
        days = self.monitor.config.reference_days
        return () if delay is None else tuple(d + timedelta(days=delay) for d in days)

    def _from_files(self, table: str, day: date) -> str | None:
        config = self.monitor.config
        if table == "labels" and config.labels is None:
            return None
        footer = self.footer(table, day)
        if footer.get("status", "missing") != "missing" and not self.files(day, _FILES_OF[table]):
            return footer["provenance"]  # files that were rotated away do not take with them what was made of them
        if not footer and not self.files(day, _FILES_OF[table]) and self.stored("attribution_histograms", day):
            return None  # files and rows are gone, histograms are kept: an empty day must not take their place
        if table == "labels":
            return combine(
                STAGE_VERSION[table], config.fingerprint("labels"), source_fingerprint(self.files(day, "labels"))
            )
        # Of the models: what they predict and in which unit. A path, a pin or an earlier version changes no row.
        sections = ("source", "columns", "features", "context", "derived_context", "models.output")
        return combine(
            STAGE_VERSION[table],
            config.fingerprint(*sections),
            str(config.explanation.replay_check_rows),
            *(self.monitor.model_hashes[r] for r in MODEL_ROLES),
            source_fingerprint(self.files(day)),
        )

    def _divergence_inputs(self, day: date) -> list[str | None]:
        upstream = [None if self.is_refused(day) else self.content("replay_log", day)]
        if self.monitor.config.divergence.threshold_quantile is not None:
            upstream += [self.content("replay_log", d) for d in self.monitor.config.reference_days]
        return upstream

    def calibration_identity(self) -> str | None:
        """What the calibration is defined by; None while there is no reference profile. A reference day that changes
        later does not change it, as it does not change the profile."""
        reference = self.reference_hash()
        if reference is None:
            return None
        keys = ("alarm_budget", "windows_days", "min_effective_rows", "min_importance_share", "match_weekday")
        config = self.monitor.config.fingerprint(*(f"drift.{key}" for key in keys))
        rate = str(self.monitor.config.alarm_rate_per_family)
        return combine(STAGE_VERSION["drift_calibration"], config, rate, reference)

    def _calibration(self) -> str | None:
        """Hash of the stored calibration; None while the present reference has none."""
        footer = self.footer("drift_calibration", None)
        return footer.get("calibration_hash") if footer.get("provenance") == self.calibration_identity() else None

    def label_calibration_identity(self) -> str | None:
        """What the calibration of labels is defined by, the residuals of every reference day among it; None while one
        of these, or the reference profile, is still to come."""
        reference = self.reference_hash()
        cohorts = [self.comparable("residual_histograms", d) for d in self.residual_reference_days()]
        present = [c for c in cohorts if c is not None]
        if reference is None or not present or len(present) < len(cohorts):
            return None
        config = self.monitor.config.fingerprint("drift.windows_days", "drift.min_effective_rows")
        rate = str(self.monitor.config.alarm_rate_per_family)
        return combine(STAGE_VERSION["label_calibration"], config, rate, reference, *present)

    def label_calibration_hash(self) -> str | None:
        """Hash of the stored calibration of labels; None while the present reference has none."""
        footer, identity = self.footer("label_calibration", None), self.label_calibration_identity()
        return footer.get("calibration_hash") if identity is not None and footer.get("provenance") == identity else None

    def _label_scores(self, day: date) -> str | None:
        """Until the reference's labels are complete a day is stored without rows, so that alerts need not wait."""
        first, reference = self.monitor.config.first_date, self.residual_reference_days()
        days = (*reference, *window_days(day, max(self.monitor.config.drift.windows_days), first))
        more = self._comparable_list("residual_histograms", days)
        if reference and day > reference[-1]:
            more.append(self.label_calibration_hash() or "-")
        upstream = [self.comparable("residual_histograms", day)]
        return self._from_stored("label_scores", [*_GRADED_BY, "labels"], upstream, more)

    @cached_property
    def _sampling(self) -> list[str]:
        """What decides which requests are explained: nothing but that all are, or budget, share and seed."""
        budget = explanation_budget(self.monitor)
        if budget is None:
            return ["all"]
        return [str(budget), self.monitor.config.fingerprint("explanation.divergent_share", "explanation.seed")]

    def _residuals(self, day: date) -> str | None:
        cohort = cohort_day(self.monitor.config, day)
        if cohort is None:
            return None
        kept = self.comparable("residual_histograms", day)
        if self.content("replay_log", cohort) is None and self.reference_hash() is not None and kept is not None:
            return kept  # the cohort's rows are past their retention: what was made of them stays
        # A cohort that never was stored (before the first day, or a day without a file) has no labelled requests;
        # waiting for it would hold up the alerts of this day.
        inputs = [self.content("replay_log", cohort) or "-"]
        inputs += [self.content("labels", d) or "-" for d in all_days(cohort, day)]
        return self._from_stored("residual_histograms", ["labels"], [self.reference_hash()], inputs)

    def _explanation_shift(self, day: date) -> str | None:
        own = self.footer("explanation_shift", day)
        reference = self.reference_hash()
        if any(self.stored(f"{r}_attributions", day) is None for r in MODEL_ROLES):
            # the day's rows are past their retention: what was made of them stays, and nothing can be made any more
            return own.get("provenance") if reference is not None and own.get("profile_hash") == reference else None
        # Histograms stand for the window's days: unlike their rows they are kept, so that retention makes no day stale.
        days = window_days(day, max(self.monitor.config.drift.windows_days), self.monitor.config.first_date)
        keys = ["drift.windows_days", "drift.alarm_budget", "explanation.seed"]
        upstream = [reference, self.comparable("attribution_histograms", day)]
        return self._from_stored(
            "explanation_shift", keys, upstream, self._comparable_list("attribution_histograms", days)
        )

    def _errors(self, day: date) -> str | None:
        cohort = cohort_day(self.monitor.config, day)
        if cohort is None:
            return None
        stored = self.stored("error_stream", day)
        if self.content("replay_log", cohort) is None and stored is not None:
            return stored  # as with residuals: what was made of rows that are gone stays, of another model too
        inputs = [self.content("replay_log", cohort) or "-"]
        inputs += [self.content("labels", d) or "-" for d in all_days(cohort, day)]
        models = [self.monitor.model_hashes[r] for r in MODEL_ROLES]
        return self._from_stored("error_stream", ["labels", "models.output"], [*models], inputs)

    def _concept_drift(self, day: date) -> str | None:
        days = all_days(min([day, *self.residual_reference_days()[:1]]), day)
        upstream = [self.stored("error_stream", day), *(self.monitor.model_hashes[r] for r in MODEL_ROLES)]
        errors = self._stored_list("error_stream", days)
        return self._from_stored("concept_drift", ["labels", "reference"], upstream, [version("river"), *errors])

    def _version_effects(self, day: date) -> str | None:
        roles = self.monitor.config.roles_with_previous
        reference = self.slice_reference_identity()
        if not roles or reference is None:
            return None
        rows = [self.stored("divergence_set", day), *(self.stored(f"{r}_attributions", day) for r in MODEL_ROLES)]
        log = None if self.is_refused(day) else self.content("replay_log", day)
        if None in rows or log is None:
            if self.comparable("attribution_histograms", day) is None:
                return None
            # The day's rows are past their retention. What was made of them stays; where nothing was, alerts must not
            # wait for it: the day is stored without rows.
            return self.stored("version_effects", day) or combine("rows are gone", reference)
        previous = [self.monitor.previous_model(r) for r in roles]
        models = [f"{r} {m.sha256} {self._explainer_of(m)}" for r, m in zip(roles, previous, strict=True)]
        keys = ["features", "explanation.seed", "drift.effect_floors"]
        return self._from_stored("version_effects", keys, [reference, log, *rows], models)

    def _quality(self, day: date) -> str | None:
        keys = ["explanation.seed", "explanation.quality_sample_rows", "context", "derived_context"]
        keys.append("drift.top_segment_values")
        tables = ("divergence_set", *(f"{r}_attributions" for r in MODEL_ROLES))
        log = None if self.is_refused(day) else self.content("replay_log", day)
        return self._from_stored("explanation_quality", keys, [log, *(self.stored(t, day) for t in tables)])

    def _slices(self, table: str, day: date) -> str | None:
        """Rows of several days; what was made of rows that are past their retention stays."""
        tables = ["divergence_set"]
        sections = ["features", "context", "derived_context", "explanation.seed"]
        upstream: list[str | None] = [None if self.is_refused(day) else self.content("replay_log", day)]
        upstream.append(self.stored("divergence_set", day))
        if table == "drift_slices":
            tables += [f"{r}_attributions" for r in MODEL_ROLES]
            sections.append("drift.effect_floors")
            upstream += [self.slice_reference_identity(), self.stored("drift_scores", day)]
            upstream += [self.stored(t, day) for t in tables[1:]]
        else:
            sections.append("divergence.decision_threshold")
        stored = self.footer(table, day)
        used = [date.fromisoformat(d) for d in json.loads(stored.get("days", "[]"))]
        if any(self.stored(t, d) is None for d in used for t in ("replay_log", *tables)):
            return stored["provenance"]
        days = window_days(day, SLICE_WINDOW_DAYS, self.monitor.config.first_date)
        rows = [self.content("replay_log", d) or "-" for d in days]
        rows += [p for t in tables for p in self._stored_list(t, days)]
        return self._from_stored(table, sections, upstream, rows)

    def slice_reference_identity(self) -> str | None:
        """What the sample of the reference's requests is defined by; None while there is no profile."""
        reference = self.reference_hash()
        if reference is None:
            return None
        config = self.monitor.config
        return combine(STAGE_VERSION["slice_reference"], reference, config.fingerprint("explanation.seed"))

    def comparable(self, table: str, day: date) -> str | None:
        """Stored provenance of histograms over the cells of the present reference; None for any others."""
        footer = self.footer(table, day)
        return footer.get("provenance") if footer.get("profile_hash") == self.reference_hash() else None

    def _comparable_list(self, table: str, days: Sequence[date]) -> list[str]:
        return [self.comparable(table, d) or "-" for d in days]

    def _stored_list(self, table: str, days: Sequence[date]) -> list[str]:
        return [self.stored(table, d) or "-" for d in days]

    def _from_stored(
        self, table: str, sections: list[str], upstream: list[str | None], more: Sequence[str] = ()
    ) -> str | None:
        present = [u for u in upstream if u is not None]
        if len(present) < len(upstream):
            return None
        return combine(STAGE_VERSION[table], self.monitor.config.fingerprint(*sections), *present, *more)


def cohort_day(config: MonitorConfig, day: date) -> date | None:
    """The day whose labels are complete on `day`; None where labels are not compared."""
    return None if config.label_delay_days is None else day - timedelta(days=config.label_delay_days)


def all_days(first: date, last: date) -> tuple[date, ...]:
    """Every day from first to last, both included."""
    return tuple(first + timedelta(days=i) for i in range((last - first).days + 1))


def window_days(day: date, window: int, first: date) -> tuple[date, ...]:
    """The `window` days that end on `day`, none before `first`."""
    return all_days(max(first, day - timedelta(days=window - 1)), day)
