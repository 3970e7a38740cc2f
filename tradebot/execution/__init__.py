"""Execution, pure: positions, risk caps and simulated fills. No thread, clock, random, database or socket."""
