"""The commands with their options. Their work is imported when they are called: PyTorch takes seconds to import."""
