"""ScaleNet's super-supernet."""
