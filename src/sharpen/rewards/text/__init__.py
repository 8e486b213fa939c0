"""Rewards that check the text of a completion by rule."""
