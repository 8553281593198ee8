"""``cryonaut train vesicles``: learn to find vesicles in tomograms or frames, simulated ones or corrected ones."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.cli.corrected import proofread_images, proofread_volumes
from agent.cli.recipes import command_line, recipe_of, training
from agent.errors import ConfigError


def vesicles(
    *,
    out: Path = Path("trained"),
    frames: Annotated[bool, Parameter(negative="")] = False,
    arch: Literal["fast", "published"] = "fast",
    from_: Annotated[Path | None, Parameter(name="--from", negative="")] = None,
    finetune: Annotated[bool, Parameter(negative="")] = False,
    start: Path | None = None,
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn to find vesicles in cryo-tomograms or, with --frames, in high-mag frames: from simulated ones.

    Such as:

    - `cryonaut train vesicles --out trained --seed 0` (tomograms)
    - `cryonaut train vesicles --frames --out trained --seed 11`
    - `cryonaut train vesicles --from corrected --finetune --out ours`, used by
      `cryonaut find vesicles --weights ours/vesicles-frames.yaml`

    Parameters
    ----------
    out
        Folder for weights, manifest and card; an interrupted run goes on from its checkpoint there.
    frames
        The network for frames (projections, sections, slices) in the place of that for tomograms.
    arch
        Tomograms only. `fast`: the network in use. `published`: the 3-D U-Net of CryoVesNet, to compare.
    from_
        Project folder of corrected frames or tomograms, with --finetune.
    finetune
        Go on from the weights in use with the corrections of --from; prints the figures on a held-out part of them
        before and after. What was corrected, frames or tomograms, says which weights.
    start
        Other weights (`.onnx`, beside their manifest) to go on from.
    config
        YAML file with the recipe; its keys are those in the model card.
    seed
        Everything random follows from it; by default the recipe's, for tomograms 0.
    steps
        In the place of the recipe's.
    """
    if finetune != (from_ is not None):
        raise ConfigError("--finetune goes with --from PROJECT, a folder of corrected frames or tomograms")
    with training():
        if finetune and from_ is not None:
            file = _corrected(out, from_, start, config, seed, steps)
        elif frames:
            file = _frames(out, start, config, seed, steps)
        else:
            file = _tomograms(out, arch, config, seed, steps)
        print(f"weights: {file}")


def _tomograms(
    out: Path, arch: Literal["fast", "published"], config: Path | None, seed: int | None, steps: int | None
) -> Path:
    """Weights for tomograms, from simulated ones."""
    from models.training import vesicles as family

    recipe = recipe_of(family.VesicleRecipe, config, steps=steps)
    file = out / f"{'vesicles-tomogram' if arch == 'fast' else 'vesicles-published'}.onnx"
    family.learn(recipe, file, arch=arch, seed=seed or 0, command=command_line())
    return file


def _frames(out: Path, start: Path | None, config: Path | None, seed: int | None, steps: int | None) -> Path:
    """Weights for frames, from simulated ones."""
    from models.training import vesicle_frames

    recipe = recipe_of(vesicle_frames.FrameRecipe, config, seed=seed, steps=steps)
    return vesicle_frames.learn(recipe, out, command=command_line(), start=start)


def _corrected(
    out: Path, project: Path, start: Path | None, config: Path | None, seed: int | None, steps: int | None
) -> Path:
    """Weights for what was corrected, tomograms or frames."""
    from models.training import vesicle_corrections, vesicle_tomogram_corrections

    first: dict[str, Any] = {} if start is None else {"start": start}
    if volumes := proofread_volumes(project):
        deep = recipe_of(vesicle_tomogram_corrections.TomogramFinetuneRecipe, config, seed=seed, steps=steps)
        return vesicle_tomogram_corrections.learn(deep, volumes, out, command=command_line(), **first)[0]
    recipe = recipe_of(vesicle_corrections.FrameFinetuneRecipe, config, seed=seed, steps=steps)
    images = proofread_images(project, "vesicles")
    return vesicle_corrections.learn(recipe, images, out, command=command_line(), **first)[0]
