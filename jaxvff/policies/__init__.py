"""Trained agents outside of training: what they need, how they act, the files they leave in."""
