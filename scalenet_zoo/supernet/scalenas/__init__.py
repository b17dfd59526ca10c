"""ScaleNAS's supernet and its training."""
