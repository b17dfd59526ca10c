"""The zoo on this machine: how long each entry takes, which entries are worth taking, and a page that shows it."""
