"""Playing games on the host.

process: one worker process, and the protocol between it and the pool.
pool: all workers; halves of the games take turns, and what breaks is replaced.
policy: actions for the games of all lanes, in one compiled call.
packing: whole episodes into segments.
play: batches to learn from, and greedy episodes.

How it works, and how fast: docs/host.md.
"""
