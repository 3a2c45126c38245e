"""Measuring students beside their teacher."""
