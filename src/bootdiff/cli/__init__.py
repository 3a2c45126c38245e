"""The command line: it parses options, calls the other rooms, and prints errors as one line."""
