"""What surrounds a simulated engine: network, exchanges, disk, other processes."""
