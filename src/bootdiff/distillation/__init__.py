"""From a teacher and settings to a student folder: conditions, plans, start, end."""
