"""Sections of cells with what networks mark in them, beside the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.training.organelles import load_weights, predict
from models.training.organelles_data import Annotated
from models.training.organelles_loop import history, weights_file
from models.training.organelles_network import OrganelleNet, build
from models.training.organelles_recipe import OrganelleRecipe

COLOURS = ((255, 90, 60), (70, 220, 90), (90, 140, 255), (255, 215, 0), (255, 80, 255), (0, 230, 230))
ZOOM = 2
GAP = 6
HEAD = 18


def network_of(folder: Path, recipe: OrganelleRecipe) -> OrganelleNet:
    """The network of the lowest validation loss of a training in a folder."""
    taken = min(history(folder), key=lambda one: one.mean)
    network = build(recipe.arch, len(recipe.structures), recipe.width, norm=False)
    load_weights(network, weights_file(folder, taken.iteration), recipe.structures)
    network.eval()
    return network


def drawn(
    file: Path,
    volumes: Mapping[str, Annotated],
    columns: Mapping[str, Mapping[str, OrganelleNet]],
    recipe: OrganelleRecipe,
    shown: tuple[str, ...] = ("mitochondrion", "er"),
) -> None:
    """One row for each volume: grey values, truth, and outlines at 0.5 of the network of each column.

    Parameters
    ----------
    file
        Picture to write.
    volumes
        By name of the cell; the section with most of the first structure is drawn.
    columns
        Networks by heading, then by name of the cell.
    shown
        Structures that are outlined.
    """
    numbers = [recipe.structures.index(name) for name in shown]
    rows = []
    for cell, volume in volumes.items():
        z = int(np.argmax((volume.bits & 1).sum((1, 2))))
        grey = volume.raw[z]
        truth = [(volume.bits[z] >> k) & 1 > 0 for k in numbers]
        row = [_outlined(grey, []), _outlined(grey, truth)]
        for networks in columns.values():
            probability = predict(networks[cell], volume.raw)[:, z]
            row.append(_outlined(grey, [probability[k] >= recipe.validation.threshold for k in numbers]))
        rows.append(row)
    high, wide = rows[0][0].shape[:2]
    sheet = Image.new("RGB", ((wide + GAP) * len(rows[0]) - GAP, (high + GAP) * len(rows) - GAP + HEAD), "white")
    pen = ImageDraw.Draw(sheet)
    for k, heading in enumerate((", ".join(volumes), "truth", *columns)):
        pen.text((k * (wide + GAP) + 4, 3), heading, fill="black")
    for j, row in enumerate(rows):
        for k, part in enumerate(row):
            sheet.paste(Image.fromarray(part), (k * (wide + GAP), HEAD + j * (high + GAP)))
    sheet.save(file, quality=82)


def _outlined(grey: NDArray[np.generic], marks: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """A section, larger, with a line around each mark."""
    large = np.asarray(grey, np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
    out = np.repeat(large[:, :, None], 3, axis=2)
    for mark, colour in zip(marks, COLOURS, strict=False):
        body = mark.repeat(ZOOM, 0).repeat(ZOOM, 1)
        out[body & ~ndimage.binary_erosion(body, iterations=1, border_value=1)] = colour
    return out
