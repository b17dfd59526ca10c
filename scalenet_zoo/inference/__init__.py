"""Prediction and evaluation: what networks and exported files find in images, and how accurate they are."""
