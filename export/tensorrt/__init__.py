"""Engines for TensorRT and for TensorRT for RTX."""
