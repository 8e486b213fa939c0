"""Central finite differences, the second opinion on every closed form."""


def gradient(function, rows, step=1e-5):
    """∂function/∂rows[i][t] for a function of a ragged list of lists."""
    result = []
    for i in range(len(rows)):
        result.append([])
        for t in range(len(rows[i])):
            values = []
            for sign in (1, -1):
                moved = [list(row) for row in rows]
                moved[i][t] += sign * step
                values.append(function(moved))
            result[i].append((values[0] - values[1]) / (2 * step))
    return result
