"""From one number per token to the loss of a step: the four reductions, as the nested sums of their papers.

A sequence is a list of numbers, one per token. ``mask`` says which of them count, ``groups`` which group each
sequence is of. A sequence in which no token counts does not exist, nor does a group of such sequences.
"""


def kept_tokens(terms, mask):
    return [term for term, counts in zip(terms, mask, strict=True) if counts]


def kept_groups(terms, mask, groups):
    """A list of groups, each a list of sequences, each a list with at least one term."""
    members = {}
    for sequence_terms, sequence_mask, group in zip(terms, mask, groups, strict=True):
        kept = kept_tokens(sequence_terms, sequence_mask)
        if kept:
            members.setdefault(group, []).append(kept)
    return list(members.values())


def per_sequence(terms, mask, groups):
    """1/P Σ_p 1/G_p Σ_i 1/|o_i| Σ_t (GRPO)."""
    total = 0.0
    groups_left = kept_groups(terms, mask, groups)
    for group in groups_left:
        group_total = 0.0
        for sequence in group:
            group_total += sum(sequence) / len(sequence)
        total += group_total / len(group)
    return total / len(groups_left)


def tokens_of_group(terms, mask, groups):
    """1/P Σ_p 1/(Σ_i |o_i|) Σ_i Σ_t (DAPO)."""
    total = 0.0
    groups_left = kept_groups(terms, mask, groups)
    for group in groups_left:
        tokens = [term for sequence in group for term in sequence]
        total += sum(tokens) / len(tokens)
    return total / len(groups_left)


def tokens_of_batch(terms, mask, groups):
    """1/(Σ_p Σ_i |o_i|) Σ_p Σ_i Σ_t."""
    tokens = [term for group in kept_groups(terms, mask, groups) for sequence in group for term in sequence]
    return sum(tokens) / len(tokens)


def constant_length(terms, mask, groups, length):
    """1/P Σ_p 1/G_p Σ_i 1/L Σ_t with one L for all (Dr. GRPO)."""
    total = 0.0
    groups_left = kept_groups(terms, mask, groups)
    for group in groups_left:
        total += sum(sum(sequence) / length for sequence in group) / len(group)
    return total / len(groups_left)


def weights(reduce, mask, groups):
    """The weight of each token: what the reduction makes of 1 at that token and 0 at all others."""
    rows = []
    for i in range(len(mask)):
        row = []
        for t in range(len(mask[i])):
            unit = [[1.0 if (j, s) == (i, t) else 0.0 for s in range(len(mask[j]))] for j in range(len(mask))]
            row.append(reduce(unit, mask, groups))
        rows.append(row)
    return rows
