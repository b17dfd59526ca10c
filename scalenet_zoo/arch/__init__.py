"""Architectures as data: specs, families, their costs and constraints. Nothing here needs torch."""
