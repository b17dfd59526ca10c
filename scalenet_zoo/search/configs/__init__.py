"""Configurations of searches, as YAML."""
