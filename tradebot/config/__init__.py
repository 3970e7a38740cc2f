"""The configuration: its keys, their checks, the TOML file."""
