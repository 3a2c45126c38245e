"""The measuring of students beside their teacher: one engine for every table."""
