"""Loss terms: pure functions of tensors, one term per token, trajectory or pair, never reduced here."""
