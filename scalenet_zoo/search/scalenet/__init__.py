"""ScaleNet's search: base model and scaling strategies (ECCV 2022)."""
