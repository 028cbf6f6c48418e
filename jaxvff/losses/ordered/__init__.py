"""Losses that give the utilities their order, with the search that says which order.

TD shapes an unconstrained joint value. A search finds a joint action that it values highly. The
utilities learn to have their maxima there. Why the order needs a loss of its own, and what is
proved of this one: docs/theory.md.
"""
