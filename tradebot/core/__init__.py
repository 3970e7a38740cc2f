"""What every other folder stands on: events, ids, errors with their exit codes, the seam for time and threads."""
