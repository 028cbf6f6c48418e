"""Games on the host, and the process that plays them.

A worker is started by path (`python envs/host`), under any Python 3.8 or newer that has NumPy and
the game, because these games pin old packages. Nothing here therefore imports jaxvff or JAX.
"""
