"""Scheduler completions from a policy."""
