"""Which features make a production model and its shadow disagree, where, since when, and what to do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_assets.component import DriftMonitor

__version__ = "0.1.0"
__all__ = ["DriftMonitor", "__version__"]


def __getattr__(name: str) -> Any:
    """`DriftMonitor` is imported on first use: importing Dagster takes a second the command line need not pay."""
    if name == "DriftMonitor":
        from xai_assets.component import DriftMonitor

        return DriftMonitor
    raise AttributeError(f"module 'xai_assets' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Names of this package, the lazily imported ones included, so that `dg` lists the component."""
    return sorted({*globals(), *__all__})
