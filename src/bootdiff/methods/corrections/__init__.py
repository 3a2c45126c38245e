"""Corrections: what follows BOOT and brings its samples to the teacher's own distribution."""
