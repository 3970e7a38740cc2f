"""Benchmarks: the speed of tradebot compared with plain SQLite and other engines. README.md describes the methods."""
