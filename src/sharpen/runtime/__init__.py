"""What the machine gives and how it is used."""
