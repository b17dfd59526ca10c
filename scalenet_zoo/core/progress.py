"""How long work tells of itself."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is; 0, where that is not known."""
