"""A student as a stock diffusers pipeline, with its model card."""
