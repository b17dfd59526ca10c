"""Supernets, whose networks share weights: elastic layers, samplers, training and inheritance."""
