"""From names to specs, networks and weights; the Hugging Face Hub."""
