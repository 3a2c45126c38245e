"""Ablations: the same teacher distilled with one setting after another changed, in one table with pictures."""
