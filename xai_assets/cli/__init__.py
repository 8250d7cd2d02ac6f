"""The `xai` command: one small module per subcommand, thin over the functions that the assets use too.

Belongs here: arguments, tables on the terminal, JSON for machines, exit codes.
Does not belong here: statistics, decisions, SQL, file formats. Dagster and the machine-learning libraries are imported
inside the commands that need them, so that `xai --help` answers at once.
"""

from xai_assets.cli.entry import main

__all__ = ["main"]
