"""The zoo on this machine: what each entry takes here, which of them are worth taking, and a page that shows it."""
