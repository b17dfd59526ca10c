"""Exporters: networks to files that other runtimes execute, each checked against its network."""
