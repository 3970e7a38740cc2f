"""mockws: a local feed server that plays market scenarios over WebSocket. It comes with a later release."""
