"""Histories drawn at random: which faults, when, and what they must lead to."""
