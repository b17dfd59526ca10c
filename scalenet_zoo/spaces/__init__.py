"""Search spaces, as YAML."""
