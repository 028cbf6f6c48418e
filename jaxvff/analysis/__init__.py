"""The stability lab: the learning dynamics of factorised values in one-step games."""
