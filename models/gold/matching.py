"""Detections against marks, one to one, as many pairs as possible at the least total distance."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


def matched(
    marks: NDArray[np.floating], found: NDArray[np.floating], reach: NDArray[np.floating] | float
) -> list[tuple[int, int]]:
    """Pairs (index of a mark, index of a detection) no further apart than the mark's ``reach``.

    Parameters
    ----------
    marks, found
        Points (n, 2) and (m, 2).
    reach
        Largest distance for each mark, or for all.
    """
    if len(marks) == 0 or len(found) == 0:
        return []
    limit = np.broadcast_to(np.asarray(reach, float), (len(marks),))
    near = cKDTree(marks).sparse_distance_matrix(cKDTree(found), float(limit.max()) + 1e-9, output_type="coo_matrix")
    keep = near.data <= limit[near.row] + 1e-9
    row, column, distance = near.row[keep], near.col[keep], near.data[keep]
    size = len(marks) + len(found)
    graph = coo_matrix((np.ones(len(row)), (row, column + len(marks))), shape=(size, size))
    _, part = connected_components(graph, directed=False)
    pairs: list[tuple[int, int]] = []
    order = np.argsort(part[row], kind="stable")
    starts = np.flatnonzero(np.diff(part[row][order], prepend=-1))
    for edges in np.split(order, starts[1:]) if len(order) else []:
        a, u = np.unique(row[edges], return_inverse=True)
        b, v = np.unique(column[edges], return_inverse=True)
        # a pair that is not allowed costs more than all that are: first as many pairs as possible, then the nearest
        cost = np.full((len(a), len(b)), 1e6)
        cost[u, v] = distance[edges]
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, j] < 1e6:
                pairs.append((int(a[i]), int(b[j])))
    return sorted(pairs)
