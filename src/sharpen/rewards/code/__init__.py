"""Rewards for programs in Python."""
