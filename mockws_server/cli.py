"""mockws: a local feed server for tradebot.

Usage:
  mockws --help
  mockws --version

Options:
  -h --help  Show this text.
  --version  Show the version.

Serving a feed comes with a later release.
"""

from __future__ import annotations

import sys
import warnings

from tradebot import __version__
from tradebot.exits import ExitCode

with warnings.catch_warnings():
    # docopt 0.6.2 has invalid escapes in its source, which Python 3.12 and newer report whenever they compile it.
    warnings.simplefilter("ignore", SyntaxWarning)
    from docopt import DocoptExit, docopt


def main(argv: list[str] | None = None) -> int:
    """Answer --help and --version; refuse anything else with exit code 12. The process's exit code."""
    try:
        arguments = docopt(__doc__ or "", argv=argv, help=False)
    except DocoptExit:
        print("mockws: the local feed server comes with a later release of tradebot.", file=sys.stderr)
        print("Today it answers only `mockws --help` and `mockws --version`.", file=sys.stderr)
        return ExitCode.CONFIG
    print(f"mockws {__version__}" if arguments["--version"] else (__doc__ or "").strip())
    return ExitCode.COMPLETE


if __name__ == "__main__":
    sys.exit(main())
