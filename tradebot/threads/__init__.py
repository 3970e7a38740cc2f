"""One thin file a stage: take from a channel, call a decision, put on a channel."""
