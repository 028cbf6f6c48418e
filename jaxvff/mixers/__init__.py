"""Mixers: flax modules from a JointStep to Q_tot; one file each, listed in jaxvff.methods.table."""
