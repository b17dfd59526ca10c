"""What everything else stands on: errors, files, quantities, this machine."""
