"""``cryonaut train gold``: learn to find immunogold, from simulated images or from a person's corrections."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from agent.cli.corrected import proofread_images
from agent.cli.recipes import command_line, recipe_of, training
from agent.errors import ConfigError


def gold(
    *,
    out: Path = Path("trained"),
    arch: Literal["fast", "gan"] = "fast",
    from_: Annotated[Path | None, Parameter(name="--from", negative="")] = None,
    finetune: Annotated[bool, Parameter(negative="")] = False,
    start: Path | None = None,
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn to find immunogold from simulated replicas and sections, or from a person's corrections.

    Such as:

    - `cryonaut train gold --out trained --seed 7`
    - `cryonaut train gold --from proofread --finetune --out trained`
    - `cryonaut train gold --arch gan --steps 20000 --out trained`

    Parameters
    ----------
    out
        Folder for weights, manifest and card; an interrupted run goes on from its checkpoint there (fast only).
    arch
        `fast`: the network in use. `gan`: pix2pix as published, to compare.
    from_
        Project folder of `cryonaut proofread`, with --finetune.
    finetune
        Go on from the weights in use with the corrections of --from; prints the figures on a held-out part of them
        before and after. Use the result with `cryonaut find gold --weights trained/gold-fast.yaml`.
    start
        Other weights (`.onnx`) to go on from.
    config
        YAML file with the recipe; its keys are those in the model card.
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    if finetune != (from_ is not None) or (finetune and arch == "gan"):
        raise ConfigError("--finetune goes with --from PROJECT (made by `cryonaut proofread`) and --arch fast")
    with training():
        from models.training import gold as family
        from models.training import gold_corrections

        if from_ is not None:
            recipe = recipe_of(gold_corrections.FinetuneRecipe, config, seed=seed, steps=steps)
            first: dict[str, Any] = {} if start is None else {"start": start}
            images = proofread_images(from_)
            file, *_ = gold_corrections.learn(recipe, images, out, command=command_line(), **first)
        elif arch == "gan":
            file = _painter(out, config, seed, steps)
        else:
            recipe = recipe_of(family.GoldRecipe, config, seed=seed, steps=steps)
            file = family.learn(recipe, out, command=command_line())
        print(f"weights: {file}")


def _painter(out: Path, config: Path | None, seed: int | None, steps: int | None) -> Path:
    """Weights of pix2pix, whose recipe has its steps in itself."""
    import msgspec

    from models.training import gold_gan
    from models.training.loop import load_recipe

    recipe = load_recipe(config, gold_gan.GanRecipe)
    changes = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    return gold_gan.learn(msgspec.structs.replace(recipe, **changes), out, command=command_line())
