"""mockws: a local WebSocket server that sends ticks and bad weather, for the live feeds to be tried with."""
