"""Latency: measured, modelled, and met."""
