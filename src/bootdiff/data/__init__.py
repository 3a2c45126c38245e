"""Data: sources of training batches, and readers of image data sets."""
