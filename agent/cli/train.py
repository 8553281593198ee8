"""``cryonaut train``: learn models from simulated grids or from a site's own marks; needs the train extra (torch)."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

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
        import msgspec

        from models.training import holes as family
        from models.training.loop import load_recipe

        def mine(recipe: Any) -> Any:
            loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
            return msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)

        if finetune is not None:
            file = _fine_tuned(finetune, start, mine, config, out)
        elif arch == "published":
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
        import msgspec

        from models.training import gold as family
        from models.training import gold_corrections, gold_gan
        from models.training.loop import load_recipe

        def mine(recipe: Any) -> Any:
            loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
            return msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)

        if from_ is not None:
            recipe = mine(load_recipe(config, gold_corrections.FinetuneRecipe))
            first: dict[str, Any] = {} if start is None else {"start": start}
            file, *_ = gold_corrections.learn(recipe, _proofread(from_), out, command=command_line(), **first)
        elif arch == "gan":
            painter = load_recipe(config, gold_gan.GanRecipe)
            changes = {k: v for k, v in (("seed", seed), ("steps", steps)) if v is not None}
            painter = msgspec.structs.replace(painter, **changes)
            file = gold_gan.learn(painter, out, command=command_line())
        else:
            file = family.learn(mine(load_recipe(config, family.GoldRecipe)), out, command=command_line())
        print(f"weights: {file}")


def _proofread(folder: Path, structure: str = "gold") -> list[Any]:
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
        import msgspec

        from models.training import hole_scores
        from models.training.loop import load_recipe

        recipe = load_recipe(config, hole_scores.WorthRecipe)
        loop = recipe.loop if baselines else msgspec.structs.replace(recipe.loop, steps=0)
        recipe = msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)
        print(f"worth: {hole_scores.learn(recipe, weights, command=command_line())}")


def _fine_tuned(marks: Path, start: Path | None, mine: Any, config: Path | None, out: Path) -> Path:
    """Weights that went on learning from marks or a session."""
    import numpy as np

    from agent.cli.marks import marked_images
    from models.runtime import WEIGHTS
    from models.training import holes_site
    from models.training.loop import load_recipe

    images = []
    for name, image, rows in marked_images(marks):
        x, y, radius, unsure = (np.array(column) for column in zip(*rows, strict=True))
        images.append(holes_site.Marked(name, image, np.column_stack([x, y]), radius, unsure.astype(bool)))
    recipe = mine(load_recipe(config, holes_site.SiteRecipe))
    return holes_site.learn(recipe, images, start or WEIGHTS / "holes-net.yaml", out, command=command_line())


@app.command
def squares(
    *,
    out: Path = Path("trained"),
    baselines: bool = True,
    config: Path | None = None,
    seed: int | None = None,
    steps: int | None = None,
) -> None:
    """Learn what squares are worth from simulated grids, and print the published comparison (LR, RF, CNN, ours).

    Such as:

    - `cryonaut train squares --out trained --seed 0`

    Parameters
    ----------
    out
        Folder for weights, manifest and card.
    baselines
        Train the published CNN for the comparison, too (a minute).
    config
        YAML file with the recipe; its keys are those in `models/training/squares.py`.
    seed
        In the place of the recipe's.
    steps
        In the place of the recipe's.
    """
    with training():
        import msgspec

        from models.training import squares as family
        from models.training.loop import load_recipe

        recipe = load_recipe(config, family.SquareRecipe)
        loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
        recipe = msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)
        if not baselines:
            loop = msgspec.structs.replace(recipe.baseline_loop, steps=0)
            recipe = msgspec.structs.replace(recipe, baseline_loop=loop)
        print(f"weights: {family.learn(recipe, out, command=command_line())}")


@app.command
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
        import msgspec

        from models.training import vesicles as family
        from models.training.loop import load_recipe

        if frames or finetune:
            print(f"weights: {_vesicle_frames(out, from_, start, config, seed, steps)}")
            return
        recipe = load_recipe(config, family.VesicleRecipe)
        if steps is not None:
            recipe = msgspec.structs.replace(recipe, loop=msgspec.structs.replace(recipe.loop, steps=steps))
        name = "vesicles-tomogram" if arch == "fast" else "vesicles-published"
        file = out / f"{name}.onnx"
        family.learn(recipe, file, arch=arch, seed=seed or 0, command=command_line())
        print(f"weights: {file}")


def _vesicle_frames(
    out: Path, project: Path | None, start: Path | None, config: Path | None, seed: int | None, steps: int | None
) -> Path:
    """Weights for frames, from nothing or from corrections; for tomograms, where it is these that were corrected."""
    import msgspec

    from models.training import vesicle_corrections, vesicle_frames, vesicle_tomogram_corrections
    from models.training.loop import load_recipe

    def mine(recipe: Any) -> Any:
        loop = recipe.loop if steps is None else msgspec.structs.replace(recipe.loop, steps=steps)
        return msgspec.structs.replace(recipe, loop=loop, seed=recipe.seed if seed is None else seed)

    if project is None:
        recipe = mine(load_recipe(config, vesicle_frames.FrameRecipe))
        return vesicle_frames.learn(recipe, out, command=command_line(), start=start)
    first: dict[str, Any] = {} if start is None else {"start": start}
    if volumes := _corrected_volumes(project):
        deep = mine(load_recipe(config, vesicle_tomogram_corrections.TomogramFinetuneRecipe))
        return vesicle_tomogram_corrections.learn(deep, volumes, out, command=command_line(), **first)[0]
    tuning = mine(load_recipe(config, vesicle_corrections.FrameFinetuneRecipe))
    images = _proofread(project, "vesicles")
    return vesicle_corrections.learn(tuning, images, out, command=command_line(), **first)[0]


def _corrected_volumes(folder: Path) -> list[Any]:
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
