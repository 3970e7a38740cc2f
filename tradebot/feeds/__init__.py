"""Where ticks come from: each feed is one file, and `base` says what they have in common."""
