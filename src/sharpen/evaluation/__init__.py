"""Held-out evaluation: pass@k, maj@k and confidence intervals."""
