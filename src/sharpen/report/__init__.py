"""A run for people: tables in the terminal and pictures."""
