"""tradebot: watches market ticks, records the orders it would have sent, and can prove what it did."""

__version__ = "0.2.0"
