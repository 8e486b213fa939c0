"""Operating-system helpers: files, signals, streams, worker processes, memory."""
