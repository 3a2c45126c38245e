"""Metrics on feature tensors and on images."""
