"""Checks a reward before training, with right answers, wrong answers and cheats."""
