"""mockws: a local WebSocket server that sends ticks and injects network faults, for trying the live feeds."""
