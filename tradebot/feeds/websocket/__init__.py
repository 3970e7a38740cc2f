"""A live feed over one WebSocket connection, with reconnects."""
