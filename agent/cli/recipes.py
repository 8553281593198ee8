"""What the commands of ``cryonaut train`` share: recipes as typed, the command line, one line per trouble."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, CryonautError


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


def recipe_of(kind: Any, config: Path | None, *, seed: int | None = None, steps: int | None = None) -> Any:
    """The recipe of a kind, from a file or its defaults, with the seed and the number of steps that were typed."""
    import msgspec

    from models.training.loop import load_recipe

    recipe = load_recipe(config, kind)
    if steps is not None:
        recipe = msgspec.structs.replace(recipe, loop=msgspec.structs.replace(recipe.loop, steps=steps))
    return recipe if seed is None else msgspec.structs.replace(recipe, seed=seed)
