"""Stages chained into a whole: the output of one is the model of the next."""
