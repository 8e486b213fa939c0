"""Loading, layouts of sequences in rows, and log-probabilities."""
