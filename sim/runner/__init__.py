"""Running many histories: worker processes, one history and its verdict, the long soak."""
