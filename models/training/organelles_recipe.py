"""How organelle networks learn: every number of the published protocol by name, with where it stands.

The defaults are the published ones (ASEM: Gallusser et al., J Cell Biol 222, e202208005, 2023; and the authors' code,
kirchhausenlab/incasem). ``config/training/organelles-published.yaml`` states them; ``config/training/organelles.yaml``
is the recipe of the fast network, the same protocol at a scale that a processor can finish.
"""

from typing import Literal

import msgspec

from models.training.organelles_network import STEP, Arch

Precision = Literal["fp32", "bf16", "fp16"]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which blocks are learned from.

    Attributes
    ----------
    block
        Edge of the answered block, a multiple of 8 (published: 110, of which the seamless form keeps 104).
    few, reject_few
        Blocks with at most this share of the structure are refused with this probability ("Training: Data sampling").
    outside, reject_outside
        Blocks with more than this share outside the annotated sample are refused with this probability (the article
        refuses all, the code 95 %).
    centred
        Share of blocks whose middle is put on a voxel of a structure drawn at random; ``few`` does not apply then.
        Ours, for rare structures; published: none.
    tries
        Refusals before a block is taken as it is.
    padding
        Grey value beyond the volume (code: 0.5); null: the volume mirrored.
    """

    block: int = 104
    few: float = 0.05
    reject_few: float = 0.9
    outside: float = 0.25
    reject_outside: float = 0.95
    centred: float = 0.0
    tries: int = 200
    padding: float | None = 0.5


class Augmentation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How blocks are varied (table S3; ``slip``, ``shift`` and ``misalign`` from the code).

    Attributes
    ----------
    mirror, transpose
        Whether axes are reversed and exchanged, before and after the turn.
    spacing, jitter, subsample
        Elastic deformation: voxels between control points, deviation of their displacement in voxels, and the coarser
        grid on which it is worked out.
    rotation_rad
        Largest turn in the imaged plane.
    slip, shift, misalign
        Chance that one section, and that all from one on, are displaced, by at most so many voxels.
    scale, offset
        Range of the factor on grey values about the block's mean, and of what is added to them (0 to 1 scale).
    deformed
        Share of blocks that are turned and deformed; others are only mirrored and transposed, which costs a third.
    gamma, noise, blur
        Ours; published: none. Range of the exponent's logarithm, largest deviation of added noise, largest smoothing
        in voxels (of half of the blocks).
    """

    mirror: bool = True
    transpose: bool = True
    spacing: int = 32
    jitter: float = 2.0
    subsample: int = 4
    rotation_rad: float = 1.5707963
    deformed: float = 1.0
    slip: float = 0.0
    shift: float = 0.05
    misalign: int = 2
    scale: tuple[float, float] = (0.85, 1.15)
    offset: tuple[float, float] = (-0.15, 0.15)
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0


class Optimisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Loss and steps ("Training: Pipeline details").

    Attributes
    ----------
    iterations, batch
        Blocks to learn from, and blocks at once.
    learning_rate, weight_decay
        Of Adam.
    schedule
        ``constant`` as published, or ``cosine``: a rise over a twentieth of the iterations, then down to a hundredth.
    clip
        The foreground's share is taken to be at least this and at most its complement, so that no class weighs more
        than 1 : 100 against the other.
    overlap
        Weight of 1 - Dice beside cross-entropy, see `overlap_loss`; 0: none, as published.
    norm
        Largest norm of the gradient; 0: any, as published.
    precision
        Of forward and backward passes; weights stay fp32.
    """

    iterations: int = 200_000
    batch: int = 1
    learning_rate: float = 3e-5
    weight_decay: float = 3e-5
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 0.01
    overlap: float = 0.0
    norm: float = 0.0
    precision: Precision = "fp32"


class Validation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which checkpoint is taken ("Validation: Procedure", figure S3).

    Attributes
    ----------
    every
        Iterations between checkpoints, each of which is validated.
    window
        Iterations that a fit regime lasts at least (published: 20,000).
    stable
        Largest relative change of the validation loss over the window; ours, since the article judges by eye.
    blocks
        Validation blocks of each held-out volume, spread evenly over it.
    averaged
        Consecutive checkpoints over which figures are averaged (tables S6 to S10: 20).
    threshold
        Of probabilities (published: 0.5).
    """

    every: int = 1000
    window: int = 20_000
    stable: float = 0.05
    blocks: int = 8
    averaged: int = 20
    threshold: float = 0.5


class FineTuning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Going on with a block of a new cell ("Fine-tuning").

    Attributes
    ----------
    iterations
        At most (published: 15,000).
    edge
        Smallest edge of the annotated block in voxels (published: 204).
    learning_rate
        In the place of the training's; 0: the same, as published. From scratch it is the training's in any case.
    """

    iterations: int = 15_000
    edge: int = 204
    learning_rate: float = 0.0


class OrganelleRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a training depends on but its data and its seed.

    Attributes
    ----------
    arch, width, structures
        Network, channels of its first level, what it marks (the published one: one structure for each network).
    voxel_nm
        Edge of the voxels that it is for.
    normalisation
        What grey values go through first, each volume as a whole, see ``cryonaut volume normalise``.
    """

    arch: Arch = "published"
    width: int = 32
    structures: tuple[str, ...] = ("mitochondrion",)
    voxel_nm: float = 5.0
    normalisation: Literal["none", "rescale", "histogram", "clahe"] = "none"
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()
    validation: Validation = Validation()
    finetuning: FineTuning = FineTuning()

    def __post_init__(self) -> None:
        if not self.structures or len(set(self.structures)) != len(self.structures) or len(self.structures) > 8:
            raise ValueError(f"structures {list(self.structures)}: one to eight different names")
        if self.arch == "published" and len(self.structures) != 1:
            raise ValueError(f"structures {list(self.structures)}: the published network marks one; train one for each")
        if self.sampling.block < STEP or self.sampling.block % STEP:
            raise ValueError(f"sampling.block {self.sampling.block}: a multiple of {STEP}")
