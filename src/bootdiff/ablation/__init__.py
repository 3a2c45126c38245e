"""Ablations: a teacher is distilled with one setting after another changed, for one table with pictures."""
