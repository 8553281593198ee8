"""The openings of one frame, before anybody says what they are worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.squares.mesh import Mesh
from models.squares.segmentation import Working


@dataclass(frozen=True, slots=True)
class Located:
    """Openings with their pixels.

    Attributes
    ----------
    mesh, work
        What they share, and the frame as the finder works on it.
    pixels
        Working counts well inside each, one array of shape (n,) per square of the mesh.
    cut
        Which of them the frame cuts.
    """

    mesh: Mesh
    work: Working
    pixels: list[NDArray[np.float32]]
    cut: NDArray[np.bool_]
