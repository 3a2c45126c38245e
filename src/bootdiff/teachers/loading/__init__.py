"""A pipeline's parts, found, checked and read: from a folder, a single file or the hub."""
