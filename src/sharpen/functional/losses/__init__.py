"""Loss terms: pure functions of tensors, one term per token, sequence or pair, never reduced here."""
