"""Planning micro-batches by plain loops: quadratic, or worse.

A row is a tuple (group, sequences, tokens); a cost is a pair, FLOPs per token and per query–key pair.
"""


def greedy(work, tokens, most_tokens, count):
    """Largest first, each to the part with the least work among those with room or empty; None if one finds none."""
    parts = [[] for _ in range(count)]
    sums, room = [0.0] * count, [most_tokens] * count
    for i in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        open_parts = [p for p in range(count) if tokens[i] <= room[p] or not parts[p]]
        if not open_parts:
            return None
        best = min(open_parts, key=lambda p: (sums[p], p))
        parts[best].append(i)
        sums[best] += work[i]
        room[best] -= tokens[i]
    return [sorted(part) for part in parts]


def balanced(work, tokens, most_tokens):
    """The greedy division into the fewest parts for which there is one."""
    for count in range(1, len(work) + 1):
        parts = greedy(work, tokens, most_tokens, count)
        if parts is not None:
            return parts
    return []


def flops(cost, prompt, completions):
    per_token, per_pair = cost
    pairs = sum(range(1, prompt + 1))
    for completion in completions:
        pairs += sum(prompt + t for t in range(1, completion + 1))
    return (prompt + sum(completions)) * per_token + pairs * per_pair


def padded_flops(cost, rows, width):
    per_token, per_pair = cost
    return rows * (width * per_token + width**2 * per_pair)


def cheapest_cuts(units, most_tokens, cost, overhead):
    """Adjacent units of rows, joined so that padding and overhead cost least; of equals the longest last part."""
    best = [(0.0, 0)]
    for end in range(1, len(units) + 1):
        width = max(tokens for _, _, tokens in units[end - 1])
        found = []
        for start in range(end):
            count = sum(len(unit) for unit in units[start:end])
            if width * count <= most_tokens or start == end - 1:
                found.append((best[start][0] + (overhead + padded_flops(cost, count, width)), start))
        best.append(min(found))
    parts, end = [], len(units)
    while end:
        start = best[end][1]
        parts.append([row for unit in units[start:end] for row in unit])
        end = start
    return parts[::-1]


def plan(masks, groups, prompts, *, most_tokens, shared, padded, by_group, cost, overhead):
    """The rows of each micro-batch. ``masks`` and ``groups`` are by sequence, ``prompts`` are lengths by group."""
    lengths = [max([t + 1 for t, trained in enumerate(mask) if trained], default=0) for mask in masks]
    units = []
    for group in sorted(set(groups)):
        prompt = prompts[group]
        sequences = [b for b in range(len(lengths)) if groups[b] == group and lengths[b]]
        if not sequences:
            continue
        if not shared:
            parts = [[b] for b in sequences]
        elif by_group:
            parts = [sequences]
        else:
            work = [flops(cost, prompt, [lengths[b]]) - flops(cost, prompt, []) for b in sequences]
            tokens = [lengths[b] for b in sequences]
            parts = [[sequences[i] for i in part] for part in balanced(work, tokens, most_tokens - prompt)]
        rows = [(group, tuple(part), prompt + sum(lengths[b] for b in part)) for part in parts]
        units += [rows] if by_group else [[row] for row in rows]
    if padded:
        units.sort(key=lambda rows: max((tokens, sequences) for _, sequences, tokens in rows))
        return cheapest_cuts(units, most_tokens, cost, overhead)
    work = [sum(flops(cost, prompts[g], [lengths[b] for b in sequences]) for g, sequences, _ in unit) for unit in units]
    tokens = [sum(tokens for _, _, tokens in unit) for unit in units]
    return [[row for i in part for row in units[i]] for part in balanced(work, tokens, most_tokens)]
