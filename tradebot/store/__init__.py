"""Everything that touches SQLite: the schema, connections, the bulk writer, readers and the spill file."""
