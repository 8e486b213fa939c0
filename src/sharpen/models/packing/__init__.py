"""How sequences are packed into rows and cut into micro-batches."""
