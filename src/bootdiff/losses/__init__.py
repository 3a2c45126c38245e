"""Distances, their weights, and the times at which they are taken."""
