"""How long work reports its progress."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total; the total is 0 where it is unknown."""
