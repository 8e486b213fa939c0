"""What the policy follows: pure functions of tensors, one term per token, never reduced here."""
