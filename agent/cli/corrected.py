"""Projects of ``cryonaut proofread`` as training reads them: images and tomograms with the marks of a person."""

from pathlib import Path
from typing import Any

from agent.errors import ConfigError


def proofread_images(folder: Path, structure: str = "gold") -> list[Any]:
    """The images of a proofreading project with their marks of ``structure``."""
    import numpy as np

    from agent.web.proofread import read_project
    from drivers.images import map_image
    from models.training.corrected_windows import Proofread

    read = []
    for sheet in read_project(folder):
        if sheet.structure != structure or sheet.sections is not None:
            kind = "a volume" if sheet.sections is not None else "an image"
            raise ConfigError(
                f"{sheet.image}: its marks are {sheet.structure} in {kind}, and not {structure} in an image"
            )
        image, _ = map_image(folder / sheet.image)
        if tuple(image.shape) != tuple(sheet.shape):
            raise ConfigError(f"{sheet.image}: {image.shape} pixels; it was proofread with {sheet.shape}")
        marks = np.array([[m.x, m.y, m.diameter_nm / sheet.pixel_nm] for m in sheet.marks]).reshape(-1, 3)
        checked = tuple((left, top, right, bottom) for left, top, right, bottom in sheet.checked)
        read.append(Proofread(Path(sheet.image).name, image, sheet.pixel_nm, marks, checked))
    return read


def proofread_volumes(folder: Path) -> list[Any]:
    """The tomograms of a project with their vesicles; none where it is a project of frames."""
    import numpy as np

    from agent.web.proofread import read_project
    from drivers.volumes import open_volume
    from models.training.vesicle_tomogram_corrections import CorrectedVolume

    sheets = [sheet for sheet in read_project(folder) if sheet.sections is not None]
    if not sheets:
        return []
    read = []
    for sheet in sheets:
        if sheet.structure != "vesicles":
            raise ConfigError(f"{sheet.image}: its marks are {sheet.structure}, and not vesicles")
        volume = open_volume(folder / sheet.image)
        if tuple(volume.array.shape) != tuple(sheet.shape):
            raise ConfigError(f"{sheet.image}: {volume.array.shape} voxels; it was proofread with {sheet.shape}")
        marks = np.array([[m.z, m.y, m.x, m.diameter_nm / 2 / sheet.pixel_nm] for m in sheet.marks]).reshape(-1, 4)
        name = Path(sheet.image).name
        read.append(CorrectedVolume(name, volume.array, sheet.pixel_nm, marks, tuple(sheet.checked)))
    return read
