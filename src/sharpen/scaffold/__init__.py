"""Writing the first recipe for somebody's data."""
