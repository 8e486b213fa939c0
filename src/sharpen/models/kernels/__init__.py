"""Faster or more memory-efficient parts of a model's forward pass."""
