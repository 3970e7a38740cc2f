"""What people read: the progress bar and the summary at the end of a run."""
