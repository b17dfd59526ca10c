"""ScaleNet's super-supernet and its training."""
