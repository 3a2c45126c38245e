"""The machine that a command runs on: processes, memory, progress, notes, streams."""
