"""Exporters: they write networks to files that other runtimes execute, and check each file against its network."""
