"""Runs histories: one and its result, many in worker processes, and a simulated day."""
