"""From arguments to a command, and from an outcome to an exit code.

Belongs here: the list of commands and what is the same for all. Does not belong here: what a command does.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from xai_assets.cli import alerts, demo, explain, init, report, run, sql, status
from xai_assets.cli.output import Output
from xai_assets.errors import XaiAssetsError

COMMANDS: tuple[ModuleType, ...] = (demo, init, run, status, alerts, explain, sql, report)
OK, FAILED, USAGE, ALERTING, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = """\
exit codes:
  0  fine
  1  refused or failed; the reason is on stderr
  2  wrong usage
  3  with --exit-code (status, alerts): an alert of severity warning or critical is open
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands. Every command also takes --format and --verbose."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--format",
        choices=("text", "json"),
        default=argparse.SUPPRESS,
        help="json: one JSON document on stdout and nothing else (default: text)",
    )
    shared.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="errors with their traceback")
    parser = argparse.ArgumentParser(
        prog="xai",
        parents=[shared],
        description="Explanation-drift monitor: why a production and a shadow model differ, and when reasons change.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rsplit(".", 1)[-1]
        text = (module.__doc__ or "").splitlines()[0]
        sub = subparsers.add_parser(
            name,
            parents=[shared],
            help=text,
            description=text,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(execute=module.execute)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A refusal is one message on stderr."""
    given = build_parser().parse_args(arguments)
    output = Output(is_json=getattr(given, "format", "text") == "json")
    try:
        return int(given.execute(given, output))
    except XaiAssetsError as error:
        if getattr(given, "verbose", False):
            raise
        output.error(str(error))
        return FAILED
    except KeyboardInterrupt:
        output.error("Interrupted. Every stored partition is whole: the old one or the new one.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) went away; without this Python complains once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
