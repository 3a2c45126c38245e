"""The command line: plan, run, one-line errors."""
