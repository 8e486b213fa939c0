"""Returns with states and actions written out: action k leads from state s_k to s_{k+1}, and a value is one of a state.

A state is all that has been read when the next token is to be chosen, so a tool's reply is part of the state after it.
"""

import math


def states(prompt, tokens, trained):
    """s_0 … s_K for the K tokens that were chosen: what was read before each of them, and the whole in the end."""
    before = [[*prompt, *tokens[:t]] for t, chosen in enumerate(trained) if chosen]
    return [*before, [*prompt, *tokens]]


def n_step_return(rewards, values, k, n, gamma):
    """R_k + γ R_{k+1} + … + γ^{n−1} R_{k+n−1} + γⁿ V(s_{k+n})"""
    return math.fsum([*(gamma**j * rewards[k + j] for j in range(n)), gamma**n * values[k + n]])


def lambda_returns(rewards, values, gamma, lam):
    """(1 − λ) Σ_{n < N} λ^{n−1} G^(n) + λ^{N−1} G^(N), with N = K − k actions left (Sutton and Barto 2018, 12.3).

    ``values`` are of the K + 1 states; the last one is 0 where the completion has ended by itself.
    """
    found = []
    for k in range(len(rewards)):
        N = len(rewards) - k
        returns = [n_step_return(rewards, values, k, n, gamma) for n in range(1, N + 1)]
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, N)] + [lam ** (N - 1)]
        found.append(math.fsum(w * g for w, g in zip(weights, returns, strict=True)))
    return found
