"""The labelling of least energy, as the minimum cut of a graph (Boykov & Kolmogorov, IEEE TPAMI 26, 1124, 2004)."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from models.organelles.annotation.energy import Energy

_MOST = 2**30  # SciPy's capacities are 32-bit integers
_FINEST = 1e6  # steps per unit of energy


def least(energy: Energy) -> NDArray[np.bool_]:
    """The labelling of least energy, shape (n,): True is structure.

    Capacities are whole numbers: costs are rounded to a millionth, or as finely as 32 bits allow for the flow of all
    supervoxels together. No other labelling is better by more than what that rounding makes up.
    """
    n = len(energy.unary)
    a, b = energy.contacts.T
    around = np.bincount(a, energy.boundaries, n) + np.bincount(b, energy.boundaries, n)
    gain = energy.unary[:, 0] - energy.unary[:, 1]  # above 0: structure is cheaper
    # what exceeds all that a supervoxel's neighbours could cost decides for itself: more would only cost precision
    gain = np.clip(gain, -(around + 1), around + 1)
    from_source, to_sink = np.maximum(gain, 0), np.maximum(-gain, 0)
    total = min(float(from_source.sum()), float(to_sink.sum()))
    largest = max(float(np.abs(gain).max(initial=0)), 2 * float(energy.boundaries.max(initial=0)))
    steps = min(_FINEST, _MOST / max(total, largest, 1e-9))
    source, sink = n, n + 1
    each = np.arange(n)
    rows = np.concatenate([a, b, np.full(n, source), each])
    columns = np.concatenate([b, a, each, np.full(n, sink)])
    capacity = np.concatenate([energy.boundaries, energy.boundaries, from_source, to_sink])
    graph = coo_array((np.rint(capacity * steps).astype(np.int32), (rows, columns)), shape=(n + 2, n + 2)).tocsr()
    graph.eliminate_zeros()
    flow = maximum_flow(graph, source, sink).flow
    left = (graph - flow).tocsr()
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, directed=True, return_predecessors=False)
    structure = np.zeros(n + 2, bool)
    structure[reached] = True
    return structure[:n]
