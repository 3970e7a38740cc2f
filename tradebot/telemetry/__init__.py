"""What a running engine says of itself: status file, metrics, webhook, systemd."""
