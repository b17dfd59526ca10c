"""Training of stand-alone networks."""
