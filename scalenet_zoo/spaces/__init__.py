"""Search spaces, written as YAML files."""
