"""Putting a run together: the recipe is taken apart, and each part gets the values that it needs."""
