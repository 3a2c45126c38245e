"""The training loop, and the files in which it keeps a run's state."""
