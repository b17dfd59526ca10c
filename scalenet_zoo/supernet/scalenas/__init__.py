"""ScaleNAS's supernet."""
