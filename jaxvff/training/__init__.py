"""Compiled programs over lanes, and the loop around them."""
