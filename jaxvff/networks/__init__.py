"""Utility networks and the layers that they and the mixers are made of."""
