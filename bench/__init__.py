"""Benchmarks: how fast tradebot is, beside plain SQLite and beside other engines. README.md says how they measure."""
