"""Samplers: from noises to samples, by a student, by a teacher and diffusers' schedulers, or by both."""
