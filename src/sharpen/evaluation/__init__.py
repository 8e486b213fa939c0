"""Measurements that say whether a model got better."""
