"""Positions and money, in exact decimals."""
