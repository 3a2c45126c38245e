"""The export of a student as a stock diffusers pipeline, with its model card."""
