"""Latency: measurement, models and budgets."""
