"""Benchmarks: a teacher is distilled by several methods, each with the same budget, for one table."""
