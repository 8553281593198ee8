"""``cryonaut train``: learn models from simulated grids or from a site's own marks; needs the train extra (torch)."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from agent.cli.recipes import command_line, recipe_of, training
from agent.cli.train_gold import gold
from agent.cli.train_vesicles import vesicles
from agent.errors import ConfigError

app = App(
    name="train", help="Train models (needs `pip install '.[train]'`); weights, manifest and model card go to --out."
)
app.command(gold)
app.command(vesicles)


@app.command
def holes(
    *,
    out: Path = Path("trained"),
    arch: Literal["compact", "published"] = "compact",
    finetune: Path | None = None,
    start: Path | None = None,
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn to find holes from simulated grids.

    Such as:

    - `cryonaut train holes --out trained --seed 0`
    - `cryonaut train holes --arch published --steps 6000 --out trained`
    - `cryonaut train holes --finetune our_marks/ --out site`, used by `cryonaut find holes --model site/holes-net.yaml`

    Parameters
    ----------
    out
        Folder for weights, manifest and card; an interrupted run goes on from its checkpoint there.
    arch
        `compact`: the finder in use. `published`: the U-Net of Kim et al. 2023 with its learned blur, to compare.
    finetune
        Go on from shipped weights with a site's own images: a folder of images with `<stem>.json` marks beside them (as
        `find --format json` writes them, corrected), or a recorded session. Recall and precision before and after are
        printed for a third of the images, which is held out.
    start
        Manifest of the weights to fine-tune; the shipped ones by default.
    config
        YAML file with the recipe; its keys are those in the model card.
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    with training():
        from models.training import holes as family

        if finetune is not None:
            file = _fine_tuned(finetune, start, out, config, seed, steps)
        elif arch == "published":
            recipe = recipe_of(family.PublishedRecipe, config, seed=seed, steps=steps)
            file = family.learn_published(recipe, out, command=command_line())
        else:
            recipe = recipe_of(family.HoleRecipe, config, seed=seed, steps=steps)
            file = family.learn(recipe, out, command=command_line())
        print(f"weights: {file}")


@app.command
def worth(
    *,
    weights: Path,
    baselines: bool = True,
    config: Path | None = None,
    seed: int | None = None,
) -> None:
    """Learn what holes are worth on top of a trained hole network, and print the published comparison.

    Such as:

    - `cryonaut train worth --weights trained/holes-net.yaml`

    Parameters
    ----------
    weights
        Manifest of the hole network; the line is written into it, and the figures into its card.
    baselines
        Train the published CNNs for the comparison, too (a minute).
    config
        YAML file with the recipe; its keys are those in `models/training/hole_scores.py`.
    seed
        In the place of the recipe's.
    """
    with training():
        from models.training import hole_scores

        recipe = recipe_of(hole_scores.WorthRecipe, config, seed=seed, steps=None if baselines else 0)
        print(f"worth: {hole_scores.learn(recipe, weights, command=command_line())}")


def _fine_tuned(
    marks: Path, start: Path | None, out: Path, config: Path | None, seed: int | None, steps: int | None
) -> Path:
    """Weights that went on learning from marks or a session."""
    import numpy as np

    from agent.cli.marks import marked_images
    from models.runtime import WEIGHTS
    from models.training import holes_site

    images = []
    for name, image, rows in marked_images(marks):
        x, y, radius, unsure = (np.array(column) for column in zip(*rows, strict=True))
        images.append(holes_site.Marked(name, image, np.column_stack([x, y]), radius, unsure.astype(bool)))
    recipe = recipe_of(holes_site.SiteRecipe, config, seed=seed, steps=steps)
    return holes_site.learn(recipe, images, start or WEIGHTS / "holes-net.yaml", out, command=command_line())


def _fine_tuned_squares(marks: Path, start: Path | None, out: Path, config: Path | None, seed: int | None) -> Path:
    """A square scorer moved to what a site's squares were judged to be."""
    import numpy as np

    from agent.cli.marks import judged_squares
    from models.runtime import WEIGHTS
    from models.training import squares_site

    frames = []
    for name, image, rows, whole in judged_squares(marks):
        table = np.array(rows, np.float64).reshape(-1, 3)
        frames.append(squares_site.JudgedFrame(name, image, table[:, :2], table[:, 2], 0.0 if whole else None))
    recipe = recipe_of(squares_site.SiteRecipe, config, seed=seed, steps=None)
    return squares_site.learn(recipe, frames, start or WEIGHTS / "squares-score.yaml", out, command=command_line())


@app.command
def squares(
    *,
    out: Path = Path("trained"),
    baselines: bool = True,
    finetune: Path | None = None,
    start: Path | None = None,
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn what squares are worth from simulated grids, and print the published comparison (LR, RF, CNN, ours).

    Such as:

    - `cryonaut train squares --out trained --seed 0`
    - `cryonaut train squares --finetune sessions/tonight --out site`, used by `cryonaut find squares --model
      site/squares-score.yaml`

    Parameters
    ----------
    out
        Folder for weights, manifest and card.
    baselines
        Train the published CNN for the comparison, too (a minute).
    finetune
        Move the shipped scorer to a site's own squares: a recorded session (what its operator accepted and rejected,
        elsewhere the share of good micrographs), or a folder of images with `<stem>.json` beside them (as
        `find --format json` writes them, without the squares that are not wanted). How well a third of the squares,
        which is held out, is told before and after is printed.
    start
        Manifest of the weights to fine-tune; the shipped ones by default.
    config
        YAML file with the recipe; its keys are those in `models/training/squares.py` (`squares_site.py` with
        --finetune).
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    with training():
        import msgspec

        if finetune is not None:
            if steps is not None:
                raise ConfigError("--steps is of the network; with --finetune only its line is fitted: leave it out")
            print(f"weights: {_fine_tuned_squares(finetune, start, out, config, seed)}")
            return
        from models.training import squares as family

        recipe = recipe_of(family.SquareRecipe, config, seed=seed, steps=steps)
        if not baselines:
            loop = msgspec.structs.replace(recipe.baseline_loop, steps=0)
            recipe = msgspec.structs.replace(recipe, baseline_loop=loop)
        print(f"weights: {family.learn(recipe, out, command=command_line())}")


@app.command
def organelles(
    *,
    out: Path = Path("trained"),
    arch: Literal["fast", "published"] = "fast",
    data: Path | None = None,
    finetune: Annotated[bool, Parameter(negative="")] = False,
    start: Path | None = None,
    baseline: bool = True,
    structures: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    config: Path | None = None,
    seed: int = 0,
    iterations: int | None = None,
    rate: float | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Learn to mark organelles in volumes, or go on with one block of a new cell.

    Such as:

    - `cryonaut train organelles --out trained --seed 0`: the shipped network, from simulated cells
    - `cryonaut train organelles --data cells.yaml --structures mitochondrion --dry-run`
    - `cryonaut train organelles --arch published --data cells.yaml --structures mitochondrion`
    - `cryonaut train organelles --finetune --data new_cell.yaml --out site`, used by
      `cryonaut segment organelles cell.zarr -o found --model site/organelles-fast.yaml`

    Parameters
    ----------
    out
        Folder for weights, manifest and card, and for the run's state and checkpoints: the same command goes on with a
        run that was interrupted, exactly.
    arch
        `fast`: the network in use. `published`: the 3-D U-Net of ASEM and its protocol, one structure a network.
    data
        YAML file with annotated volumes, see docs/organelles.md; simulated cells without it.
    finetune
        Go on with the volume in --data, and measure before and after on its `held_out` volumes.
    start
        What to go on from: the folder of a training (its first checkpoint of the fit regime is taken, as published), a
        checkpoint, or a manifest; the shipped weights by default.
    baseline
        With --finetune: train from scratch on the same block for as long, to compare.
    structures
        In the place of the recipe's.
    config
        YAML file with the recipe; by default `config/training/organelles.yaml`, or `organelles-published.yaml`.
    seed
        Everything random follows from it.
    iterations
        In the place of the recipe's.
    rate
        Learning rate in the place of the recipe's, such as a smaller one to go on with other cells (--start).
    dry_run
        Measure two iterations; print time, memory and disk.
    """
    from agent.settings import preset_folder

    with training():
        import msgspec

        from models.runtime import WEIGHTS
        from models.training import organelles as family
        from models.training.loop import load_recipe
        from models.training.organelles_recipe import OrganelleRecipe

        usual = "organelles.yaml" if arch == "fast" else "organelles-published.yaml"
        recipe = load_recipe(config or preset_folder() / "training" / usual, OrganelleRecipe)
        if structures:
            recipe = msgspec.structs.replace(recipe, structures=structures)
        if rate is not None:
            changed = msgspec.structs.replace(recipe.optimisation, learning_rate=rate)
            tuning = msgspec.structs.replace(recipe.finetuning, learning_rate=rate)
            recipe = msgspec.structs.replace(recipe, optimisation=changed, finetuning=tuning)
        if dry_run:
            most = recipe.finetuning.iterations if finetune else recipe.optimisation.iterations
            print("\n".join(family.cost(recipe).lines(recipe, iterations or most, held_out=2)))
            return
        given, counted = _organelle_data(data, finetune, recipe)
        if finetune:
            begin = start or WEIGHTS / f"{family.WEIGHTS}.yaml"
            file = family.fine_tuned(
                recipe, given, out, begin, baseline=baseline, seed=seed, iterations=iterations,
                command=command_line(), counted=counted,
            )  # fmt: skip
        else:
            file = family.trained(
                recipe, given, out, start=start, seed=seed, iterations=iterations, command=command_line(),
                counted=counted,
            )  # fmt: skip
        print(f"weights: {file}")


def _organelle_data(path: Path | None, finetune: bool, recipe: Any) -> tuple[Any, dict[str, Any]]:
    """Volumes to learn from, and by name of a held-out volume where scores count."""
    from models.training import organelles as family
    from models.training.organelles_data import Annotated as AnnotatedVolume

    if path is None:
        if finetune:
            raise ConfigError(
                "--finetune goes with --data: a block of the new cell; to try it: cryonaut simulate cell naive-1"
                " --region 50 --region 60 --out naive, then --data naive/data.yaml"
            )
        return family.varied_data(recipe), {}
    from agent.cli.organelle_data import read

    training, held_out = read(path, recipe.voxel_nm, recipe.normalisation)
    volumes = [
        tuple(AnnotatedVolume.of(one.name, one.raw, one.labels, recipe.structures, one.mask) for one in some)
        for some in (training, held_out)
    ]
    what = f"{len(training)} annotated volumes of {path.name}"
    return family.Data(volumes[0], volumes[1], what), {one.name: one.counted for one in held_out if one.counted}
