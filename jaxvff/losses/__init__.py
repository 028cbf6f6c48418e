"""Losses of one segment, and the targets that they learn."""
