"""Options that `evaluate` and `predict` share."""

from scalenet_zoo.core.errors import UsageError


def tile_overlap(tile: bool, overlap: float | None) -> float | None:
    """Resolve the overlap of tiles, as a share of a tile; None: there are no tiles.

    Args:
        tile: whether the network sees images in tiles.
        overlap: the requested overlap; None: the default.

    Raises:
        UsageError: an overlap is given without tiles, or is out of range.
    """
    if overlap is not None and not tile:
        raise UsageError(f"`overlap`: found {overlap} without `tile`, expected both")
    if overlap is not None and not 0 <= overlap <= 0.9:
        raise UsageError(f"`overlap`: found {overlap}, expected 0 to 0.9")
    if not tile:
        return None
    from scalenet_zoo.inference.tiling import OVERLAP

    return OVERLAP if overlap is None else overlap
