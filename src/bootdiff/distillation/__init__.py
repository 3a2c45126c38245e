"""Distillation, from a teacher and settings to a student folder: plans, conditions, training, and its end."""
