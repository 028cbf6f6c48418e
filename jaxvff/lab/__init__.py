"""The stability lab: what the paper claims of the learning dynamics, held against exact figures.

A question (points, escapes, spectra, barriers, phase, basins, claims) is a file of its name, whose
`answer` returns what its JSON file holds. `questions` lists them and runs them.
"""
