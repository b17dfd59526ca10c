"""The lowest layer, which all others use: errors, files, quantities and facts about this machine."""
