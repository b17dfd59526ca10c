"""The global random generators of Python, NumPy and torch, which a library must leave as it finds them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import rich.style  # noqa: F401 - the first import of it draws a number, whichever command that is
import torch


@contextmanager
def same_random_states() -> Iterator[None]:
    """Fail if a block changes what the global generators draw next."""
    before = _states()
    yield
    assert _states() == before


def _states() -> list[object]:
    kind, keys, *others = np.random.get_state(legacy=True)
    return [random.getstate(), [kind, list(keys), *others], torch.get_rng_state().tolist()]
