"""Exchanges whose public trades can be listened to: one pure file each, registered here by one line.

An adapter turns symbols into subscription messages and the text of a frame into ticks. To add an exchange, write
`tradebot/feeds/exchanges/NAME.py` with a subclass of `base.Exchange` and add its line below.
"""

from __future__ import annotations

from typing import Final

from tradebot.feeds.exchanges.base import Exchange
from tradebot.feeds.exchanges.mockws import MockWs

EXCHANGES: Final[dict[str, type[Exchange]]] = {
    "mockws": MockWs,
}
"""Adapters by the name that `--exchange` and ws_sources.toml use."""
