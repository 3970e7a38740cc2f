"""`python -m mockws_server`."""

import sys

from mockws_server.cli import main

sys.exit(main())
