"""Sampling completions from a policy, and the sources that training data comes from."""
