"""Checks a reward before it is trained on: right answers, wrong answers, cheats."""
