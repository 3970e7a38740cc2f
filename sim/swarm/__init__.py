"""Randomly drawn histories: faults, times and expected results."""
