"""Rewards from trained reward models."""
