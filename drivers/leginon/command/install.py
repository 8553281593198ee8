"""Writes the scripts that Leginon sources, with the paths of this installation inside."""

import os
import shlex
import sys
from pathlib import Path
from typing import Literal

from agent.errors import BadFileError, ConfigError

Shell = Literal["bash", "csh"]
NODES = {"squares": "MosaicScoreTargetFinder", "holes": "ScoreTargetFinder"}
USAGE = "source {name} JOB INPUT.mrc OUTDIR: writes OUTDIR/JOB.json"


def install(
    folder: Path, *, shell: Shell = "bash", shrunk: bool = False, squares: str, holes: str, meet: Path | None = None
) -> list[Path]:
    """Write ``squares.sh`` and ``holes.sh`` (``.csh``) into ``folder``.

    Parameters
    ----------
    folder
        Made where it is missing. Leginon quotes nothing, so its path must hold no space.
    shell
        Leginon runs bash, or csh for scripts that end in ``csh``.
    shrunk
        Holes in pixels of the image as Leginon bins it (images above 1440 pixels).
    squares, holes
        Names of models.
    meet
        Folder in which clients and warm finders meet, where it is not to be ``/tmp/cryonaut-<uid>``.

    Raises
    ------
    ConfigError
        If Leginon could not use the path.
    BadFileError
        If a file cannot be written.
    """
    folder = folder.absolute()
    if any(c.isspace() or c in "'\"$`\\;&|<>()*?!" for c in str(folder)):
        raise ConfigError(f"{folder}: Leginon quotes nothing: a path without spaces and special characters is needed")
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for what in ("squares", "holes"):
            path = folder / f"{what}.{'csh' if shell == 'csh' else 'sh'}"
            options = ["--squares", squares, "--holes", holes]
            options += ["--folder", str(meet.absolute())] if meet is not None else []
            options += ["--shrunk"] if shrunk and what == "holes" else []
            path.write_text(script(what, path.name, shell, options), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise BadFileError(f"{folder}: cannot be written: {error.strerror}") from error
    return written


def script(what: str, name: str, shell: Shell, options: list[str]) -> str:
    """The text of one script: no execute bit, no ``$0``, no exit, nothing left behind in the shell that sources it."""
    client = Path(__file__).with_name("client.py")
    libraries = os.environ.get("LD_LIBRARY_PATH")
    clean = ["env", "-u", "LD_LIBRARY_PATH"] if libraries is None else ["env", f"LD_LIBRARY_PATH={libraries}"]
    call = " ".join(shlex.quote(part) for part in [*clean, sys.executable, "-I", str(client), what])
    call += f' "$2" "$3/$1.json" {" ".join(shlex.quote(part) for part in options)}'
    few, then, end = ("$#argv < 3", "then", "endif") if shell == "csh" else ("[ $# -lt 3 ]", "then", "fi")
    test = f"if ({few}) {then}" if shell == "csh" else f"if {few}; {then}"
    usage = f'echo "{USAGE.format(name=name)}"' + ("" if shell == "csh" else " >&2")
    return (
        f"# Cryonaut: {what} for Leginon's {NODES[what]}. {USAGE.format(name=name)}\n"
        f"# Written by `cryonaut driver leginon install`; after an update of Cryonaut or Python write it again.\n"
        f"{test}\n    {usage}\nelse\n    {call}\n{end}\n"
    )
