"""Files that are whole whatever happens, read within limits, and run folders."""
