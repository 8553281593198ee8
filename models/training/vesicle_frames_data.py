"""Simulated vesicles on the frame network's raster, and what the network is to say about them."""

from collections.abc import Sequence

import numpy as np

from models.training.gold_data import Batch, Field, Sample, crop, targets
from models.vesicles.frames import CELLS, RASTER_NM, raster_of
from simulators.specimen import vesicles


def simulated(seed: int, side: int) -> Sample:
    """A frame of ``side`` raster pixels, of a random look at a random magnification."""
    rng = np.random.default_rng([seed, 61])
    pixel_nm = float(np.exp(rng.uniform(np.log(0.35), np.log(5.2))))
    look = vesicles.draw_look(rng, pixel_nm)
    native = int(np.ceil(side * RASTER_NM / pixel_nm))
    return sample_of(vesicles.render(look, seed, (native, native), pixel_nm), side)


def sample_of(frame: vesicles.VesicleFrame, side: int) -> Sample:
    """A simulated frame as the network learns from it, at most ``side`` raster pixels."""
    raster = raster_of(frame.image, frame.pixel_nm)
    picture = raster.window(0, 0, min(side, raster.shape[0]), min(side, raster.shape[1]))
    marks = [
        ((v.x + 0.5) / raster.step - 0.5, (v.y + 0.5) / raster.step - 0.5,
         v.diameter_nm / frame.pixel_nm / raster.step, float(v.visible))
        for v in frame.vesicles
    ]  # fmt: skip
    return Sample(np.clip(picture, -60, 60).astype(np.float16), np.array(marks, np.float32).reshape(-1, 4))


def batch(samples: Sequence[Sample], seed: int, step: int, size: int, side: int) -> Batch:
    """The batch of one step: ``size`` crops of ``side`` pixels, turned, mirrored and with other contrast."""
    rng = np.random.default_rng([seed, 67, step])
    crops = [crop(rng, samples[int(rng.integers(len(samples)))], side) for _ in range(size)]
    maps = [targets(marks, side, CELLS) for _, marks in crops]
    pictures = np.stack([_contrast(rng, picture) for picture, _ in crops])[:, None]
    return Batch(pictures, np.stack([m[0] for m in maps]), np.stack([m[1] for m in maps]))


def _contrast(rng: np.random.Generator, picture: Field) -> Field:
    """Greys are measured over a whole frame, of which any share may be empty resin or ice: leave them much freedom."""
    gain = np.float32(np.exp(rng.normal(0, 0.35)))
    return np.asarray(picture * gain + np.float32(rng.normal(0, 0.6)), np.float32)
