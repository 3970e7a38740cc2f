"""`python -m tradebot`: the same as the command tradebot."""

import sys

from tradebot.cli.startup import tradebot

if __name__ == "__main__":
    sys.exit(tradebot())
