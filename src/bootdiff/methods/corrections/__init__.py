"""Corrections: methods that follow BOOT and bring its samples closer to the teacher's own distribution."""
