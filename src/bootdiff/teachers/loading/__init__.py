"""Finding, checking and reading a pipeline's parts, from a folder, a single file or the hub."""
