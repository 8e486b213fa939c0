"""Micro-batch planning and sequence packing."""
