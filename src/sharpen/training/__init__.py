"""The loop that is the same for every method, and what it keeps on disk."""
