"""`python -m tradebot`: the same as the command tradebot."""

import sys

from tradebot.cli import main

if __name__ == "__main__":
    sys.exit(main())
