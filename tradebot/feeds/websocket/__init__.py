"""A live feed: one WebSocket connection, kept up."""
