"""Slow, plain references: loops over lists of Python floats, each written from the formula of its paper."""
