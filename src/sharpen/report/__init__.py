"""Reports on a run: terminal tables, progress and plots."""
