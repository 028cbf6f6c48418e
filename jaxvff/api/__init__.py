"""What users call from Python. What the command line does is these functions."""
