"""The SFT loss: the negative log-likelihood of the demonstrations' tokens."""

from oracles.reduction import kept_tokens


def token_mean(logprobs, mask):
    tokens = [logprob for row, row_mask in zip(logprobs, mask, strict=True) for logprob in kept_tokens(row, row_mask)]
    return -sum(tokens) / len(tokens)


def sequence_mean(logprobs, mask):
    sequences = [kept_tokens(row, row_mask) for row, row_mask in zip(logprobs, mask, strict=True)]
    sequences = [sequence for sequence in sequences if sequence]
    return -sum(sum(sequence) / len(sequence) for sequence in sequences) / len(sequences)
