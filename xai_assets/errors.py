"""The one base error of the project, and how its messages are built.

Belongs here: exceptions that say what was wrong, what was expected, what was found and what to do next.
Does not belong here: logging, retries, anything that knows a file format or Dagster.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class XaiAssetsError(Exception):
    """A refusal that a person can act on.

    Parameters
    ----------
    what
        What was wrong, naming the key, column, file or model concerned.
    expected, found
        What would have been right, and what was there instead.
    next_step
        What the reader should do now.
    nothing_written
        True where the refusal came before anything was stored; the message then says so.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str = "",
        found: str = "",
        next_step: str = "",
        nothing_written: bool = True,
    ) -> None:
        self.what, self.expected, self.found, self.next_step = what, expected, found, next_step
        parts = [what.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected: {expected}.")
        if found:
            parts.append(f"Found: {found}.")
        if next_step:
            parts.append(f"Next: {next_step}" if next_step.endswith("?") else f"Next: {next_step.rstrip('.')}.")
        if nothing_written:
            parts.append("Nothing was written.")
        super().__init__(" ".join(parts))


class ConfigError(XaiAssetsError):
    """A key of a monitor's configuration has a wrong name or value."""


class SourceError(XaiAssetsError):
    """A source file cannot be read as what the configuration says it is."""


class ModelError(XaiAssetsError):
    """A model artifact is missing, corrupt, refused, or does not fit the configuration."""


class LakeError(XaiAssetsError):
    """A stored table is missing, of another version, or cannot be written."""


class ProvenanceError(XaiAssetsError):
    """Stored results were made under another configuration, model or reference and may not be mixed."""


class StatisticsError(XaiAssetsError, ValueError):
    """The numbers given to a formula are outside what it is defined for."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint naming the closest valid name.

    >>> nearest("incom", ["age", "income"])
    "did you mean 'income'?"
    >>> nearest("zzz", ["age", "income"])
    'valid names: age, income'
    """
    names = sorted(valid)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "valid names: " + ", ".join(names) if names else "there are none"
