"""Settings: what a YAML file, ``--set`` and Python may say, with defaults, ranges and meanings."""
