"""Second half of launch.sh: imports the program from the checkout and says what to do when a dependency is missing.

It runs under whatever python3 there is, so its syntax is one that older versions of Python 3 understand.
"""

import importlib
import os
import signal
import sys
import warnings

CONFIG = 12  # tradebot.core.errors.ExitCode.CONFIG, spelled out because that import may be the one that fails


def refuse(program, problem):
    """Say `problem` on standard error and leave with the exit code for an unusable set-up."""
    sys.stderr.write("{}: {}\n".format(program, problem))
    sys.exit(CONFIG)


def end_quietly(program, arguments):
    """Have Ctrl-C end the process at once, without a traceback, while the program is imported: nothing has begun.

    launch.sh has blocked SIGINT until here. The code is 0 for a program that counts an interrupt as served, 1 for a
    command that has not answered.
    """
    is_run = program == "mockws" or not arguments or arguments[0] == "run" or arguments[0].startswith("-")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(0 if is_run else 1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def launch(root, module, arguments):
    """Import `module` from the checkout at `root` and leave with what its main() answers."""
    program = {"tradebot.cli.main": "tradebot", "mockws_server.cli": "mockws"}[module]
    end_quietly(program, arguments)
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        found = "{}.{} at {}".format(sys.version_info[0], sys.version_info[1], sys.executable)
        refuse(program, "needs Python 3.11 to 3.13, found " + found + "; run `make setup` in " + root)
    # The first entry was bin/, which holds nothing to import.
    sys.path[0] = root
    sys.argv = [program, *arguments]
    # docopt 0.6.2 has invalid escapes in its source, which Python 3.12 and newer report whenever they compile it.
    warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*docopt")
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("tradebot", "mockws_server"):
            raise
        refuse(program, "the Python package '" + error.name + "' is missing; run `make setup` in " + root)
    sys.exit(main())


if __name__ == "__main__":
    launch(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sys.argv[1], sys.argv[2:])
