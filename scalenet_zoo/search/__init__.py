"""The search for base models and scaling strategies: spaces, constraints, scoring, evolution, reports."""
