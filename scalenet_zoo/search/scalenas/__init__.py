"""ScaleNAS's search: topologies of multipath networks (AutoML-Conf 2022)."""
