"""The simulated environment of an engine: network, exchanges, disk, other processes."""
