"""Pure functions of tensors: losses, advantages, returns."""
