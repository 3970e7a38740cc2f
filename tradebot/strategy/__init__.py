"""Strategies: the protocol, the registry, and those that come with the program."""
