"""Search spaces of multipath networks, as YAML."""
