"""Usage texts of options that several commands share, so that an option has the same text everywhere."""

from __future__ import annotations

from typing import Final

CONFIG: Final = """\
  --config=FILE       Read this configuration file (TOML); it must exist. Default: $TRADEBOT_CONFIG, else
                      ~/.config/tradebot/tradebot.toml if there is one.
"""
DB: Final = """\
  --db=FILE           The database. Default: app.db_path of the configuration, else tradebot.db in $STATE_DIRECTORY or
                      in ~/.local/state/tradebot.
"""
SET: Final = """\
  --set=KEY=VALUE     Set a configuration key, for example --set feed.idle_timeout_s=60. May be given several times.
                      Overrides the environment and the file. Other users of the machine can read the command line:
                      keep credentials in a file or in the environment.
"""
JSON: Final = """\
  --json              Print one JSON object on one line.
"""
LOGS: Final = """\
  --log-level=LEVEL   debug, info, warning or error. Default: $TRADEBOT_LOG_LEVEL, else info.
  --log-format=FORM   json or text. Default: text on a terminal, json elsewhere.
"""
SYSTEMCTL: Final = """\
  --systemctl=PROG    The program to run as systemctl, for example "systemctl --user". Default: systemctl.
"""
PSI_ROOT: Final = """\
  --psi-root=DIR      Read the kernel's pressure files in this directory. Default: /proc/pressure.
"""
WS_SOURCE: Final = """\
  --ws-source=NAME    Take exchange, symbols and limits from this entry of ws_sources.toml.
"""
WS_SOURCES: Final = """\
  --ws-sources=FILE   Read this ws_sources.toml; it must exist. Default: the one beside the configuration file, else
                      ~/.config/tradebot/ws_sources.toml, else the examples that come with tradebot.
"""
WS_URL: Final = """\
  --ws-url=URL        Connect to this URL (ws:// or wss://). Other users of the machine can read the command line: for
                      a URL with credentials use engine.ws_url_file or $TRADEBOT_WS_URL.
"""
HELP: Final = """\
  -h --help           Show this help.
"""
