"""Invariants of every history, computed independently of the product."""
