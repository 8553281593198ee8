"""``cryonaut train``: learn models from simulated grids or from a site's own marks; needs the train extra (torch)."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from agent.errors import ConfigError, CryonautError

app = App(
    name="train", help="Train models (needs `pip install '.[train]'`); weights, manifest and model card go to --out."
)


@contextmanager
def training() -> Iterator[None]:
    """Turn what a person can mend into one line: torch that is missing, a recipe that is wrong."""
    try:
        from models.training.loop import TrainingError
    except ImportError as error:
        raise ConfigError(f"training needs torch ({error}): pip install '.[train]'") from error
    try:
        yield
    except TrainingError as error:
        raise CryonautError(str(error)) from error


def command_line() -> str:
    """The command as it was typed, for manifests and cards."""
    return shlex.join(["cryonaut", *sys.argv[1:]])


@app.command
def holes(
    *,
    out: Path = Path("trained"),
    arch: Literal["compact", "published"] = "compact",
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn to find holes from simulated grids.

    Such as:

    - `cryonaut train holes --out trained --seed 0`
    - `cryonaut train holes --arch published --steps 6000 --out trained`

    Parameters
    ----------
    out
        Folder for weights, manifest and card; an interrupted run goes on from its checkpoint there.
    arch
        `compact`: the finder in use. `published`: the U-Net of Kim et al. 2023 with its learned blur, to compare.
    config
        YAML file with the recipe; its keys are those in the model card.
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    with training():
        import msgspec

        from models.training import holes as family
        from models.training.loop import load_recipe

        def mine(recipe: Any) -> Any:
            loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
            return msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)

        if arch == "published":
            file = family.learn_published(
                mine(load_recipe(config, family.PublishedRecipe)), out, command=command_line()
            )
        else:
            file = family.learn(mine(load_recipe(config, family.HoleRecipe)), out, command=command_line())
        print(f"weights: {file}")


@app.command
def gold(
    *,
    out: Path = Path("trained"),
    arch: Literal["fast", "gan"] = "fast",
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn to find immunogold from simulated replicas and sections.

    Such as:

    - `cryonaut train gold --out trained --seed 7`
    - `cryonaut train gold --arch gan --steps 20000 --out trained`

    Parameters
    ----------
    out
        Folder for weights, manifest and card; an interrupted run goes on from its checkpoint there (fast only).
    arch
        `fast`: the network in use. `gan`: pix2pix as published, to compare.
    config
        YAML file with the recipe; its keys are those in the model card.
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    with training():
        import msgspec

        from models.training import gold as family
        from models.training import gold_gan
        from models.training.loop import load_recipe

        if arch == "gan":
            painter = load_recipe(config, gold_gan.GanRecipe)
            changes = {k: v for k, v in (("seed", seed), ("steps", steps)) if v is not None}
            painter = msgspec.structs.replace(painter, **changes)
            file = gold_gan.learn(painter, out, command=command_line())
        else:
            recipe = load_recipe(config, family.GoldRecipe)
            loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
            recipe = msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)
            file = family.learn(recipe, out, command=command_line())
        print(f"weights: {file}")
