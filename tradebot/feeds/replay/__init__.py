"""A feed that reads recorded files."""
