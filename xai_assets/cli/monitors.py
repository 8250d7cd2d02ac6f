"""Which monitor a command speaks of: a name in `defs/`, the path of a `defs.yaml`, or a name in the lake.

Belongs here: reading `defs.yaml` without Dagster. Does not belong here: checking values (see `config`).
"""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xai_assets
from xai_assets.config import MonitorConfig
from xai_assets.errors import ConfigError, LakeError, nearest
from xai_assets.lake.location import in_data_folder, lake_root, project_root

if TYPE_CHECKING:
    from xai_assets.lake.store import Lake

FILE = "defs.yaml"
COMPONENT = "DriftMonitor"


def defs_folder() -> Path:
    """Where the monitors of this deployment are configured, one folder each."""
    return Path(xai_assets.__file__).parent / "defs"


def open_lake() -> "Lake":
    """The lake of this deployment."""
    from xai_assets.lake.store import Lake

    return Lake(lake_root())


def configured_names() -> list[str]:
    """Names of the monitors in `defs/`."""
    return sorted(p.parent.name for p in defs_folder().glob(f"*/{FILE}"))


def load_config(monitor: str) -> MonitorConfig:
    """The configuration behind a name in `defs/`, or behind the path of a `defs.yaml` (or of its folder).

    Raises
    ------
    ConfigError
        There is no such monitor, or the file is not a monitor's.
    """
    path = _file(monitor)
    return in_data_folder(MonitorConfig.from_mapping(path.parent.name, read_attributes(path), project_root()))


def _file(monitor: str) -> Path:
    named = defs_folder() / monitor / FILE
    if monitor.isidentifier() and named.is_file():
        return named
    given = Path(monitor).absolute()
    file = given / FILE if given.is_dir() else given
    if file.suffix in (".yaml", ".yml") and file.is_file():
        return file
    raise ConfigError(
        f"there is no monitor '{monitor}'",
        expected=f"a folder in {_shown(defs_folder())}, or the path of a {FILE}",
        next_step=nearest(monitor, configured_names()),
    )


def read_attributes(path: Path) -> dict[str, Any]:
    """What stands under `attributes:`. Raises ConfigError where the file is not YAML or of another component."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{_shown(path)} is not YAML", found=text, next_step="correct the file") from error
    if not isinstance(content, dict) or not str(content.get("type", "")).endswith(COMPONENT):
        raise ConfigError(
            f"{_shown(path)} does not describe a monitor",
            expected=f"'type: xai_assets.{COMPONENT}' and 'attributes:'",
            found=repr(content.get("type")) if isinstance(content, dict) else type(content).__name__,
        )
    attributes = content.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def stored_name(lake: "Lake", monitor: str) -> str:
    """The name under which a monitor is stored; for commands that read only the lake.

    Raises LakeError where nothing is stored under it.
    """
    known = lake.monitors()
    if monitor in known:
        return monitor
    if Path(monitor).exists() or monitor in configured_names():
        name = load_config(monitor).name
        if name in known:
            return name
    raise LakeError(
        f"nothing is stored of a monitor '{monitor}'",
        found=f"monitors in the lake: {', '.join(known) or 'none'}",
        next_step=f"xai run {monitor} --from DAY --to DAY",
        nothing_written=False,
    )


def parse_day(text: str) -> date:
    """A day on the command line. Raises ArgumentTypeError, which argparse turns into a usage error."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a day such as 2025-01-31") from None


def _shown(path: Path) -> str:
    root = project_root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
