"""``cryonaut driver``: the adapters to microscope software, each a process beside it."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

app = App(name="driver", help="Join a microscope's own software to the daemon.")


@app.command
def serialem(
    *,
    config: Annotated[Path, Parameter(alias="-c")] = Path("config/serialem.yaml"),
    mode: Literal["pilot", "advisor"] | None = None,
    log: Literal["auto", "json", "text"] = "auto",
) -> None:
    """Drive a microscope through SerialEM, or advise its operator; Ctrl-C leaves the microscope in its safe state.

    SerialEM needs the property `EnableExternalPython 1`; docs/serialem.md says what else.

    Such as:

    - `cryonaut driver serialem --config config/serialem.yaml`
    - `cryonaut driver serialem --mode advisor`

    Parameters
    ----------
    config
        YAML file; `config/serialem.yaml` is the commented start.
    mode
        pilot: the agent leads; advisor: people or scripts take the images, targets come into the Navigator.
    log
        Form of the log on stderr; auto is text on a terminal and JSON elsewhere.
    """
    from agent import logs
    from agent.settings import preset_folder
    from drivers.serialem.run import run
    from drivers.serialem.settings import load

    if not config.exists() and (preset := preset_folder() / config.name).exists():
        config = preset
    settings = load(config, mode=mode)
    logs.configure(json=None if log == "auto" else log == "json")
    run(settings)


leginon = App(name="leginon", help="Answer an unmodified Leginon: squares, holes, order, learning.")
app.command(leginon)


@leginon.default
def serve(
    *,
    config: Annotated[Path, Parameter(alias="-c")] = Path("config/leginon.yaml"),
    host: str | None = None,
    port: int | None = None,
    log: Literal["auto", "json", "text"] = "auto",
) -> None:
    """Serve the HTTP calls of Leginon's ptolemy.cfg, backed by the daemon; Ctrl-C ends it, nothing is lost.

    It prints one line with its address when Leginon may ask. docs/leginon.md has both set-ups step by step. Such as:

    - `cryonaut driver leginon --config config/leginon.yaml`
    - `cryonaut driver leginon --port 8001`

    Parameters
    ----------
    config
        YAML file; `config/leginon.yaml` is the commented start.
    host
        Address to listen at instead of the config's; off this machine the config must name who may ask (http.allow).
    port
        Port to listen at instead of the config's; 0 is any free one.
    log
        Form of the log on stderr; auto is text on a terminal and JSON elsewhere.
    """
    from functools import partial

    from agent import logs
    from agent.settings import preset_folder
    from drivers.leginon.run import run
    from drivers.leginon.settings import load

    if not config.exists() and (preset := preset_folder() / config.name).exists():
        config = preset
    settings = load(config, http__host=host, http__port=port)
    logs.configure(json=None if log == "auto" else log == "json")
    run(settings, partial(print, flush=True))


@leginon.command
def install(
    *,
    dir: Path,
    shell: Literal["bash", "csh"] = "bash",
    shrunk: bool = False,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    meet: Path | None = None,
) -> None:
    """Write the two scripts that Leginon's score target finders source: squares and holes.

    Put their paths into the settings of "Square Targeting" (squares) and "Exposure Targeting" (holes). The first image
    starts finders that stay warm for half an hour; nothing has to run beforehand. Such as:

    - `cryonaut driver leginon install --dir /opt/cryonaut-leginon`
    - `cryonaut driver leginon install --dir /opt/cryonaut-leginon --shrunk`

    Parameters
    ----------
    dir
        Folder for the scripts; its path must hold no space.
    shell
        bash, or csh for sites whose Leginon sources csh scripts.
    shrunk
        Holes in pixels of the image as Leginon bins it; for hole images above 1440 pixels.
    config
        YAML file of the driver whose `finders` name the models (default: the built-in ones).
    meet
        Folder in which scripts and warm finders meet (default: /tmp/cryonaut-UID).
    """
    from drivers.leginon.command.install import install as write
    from drivers.leginon.settings import LeginonSettings, load

    finders = (load(config) if config is not None else LeginonSettings()).finders
    for path in write(dir, shell=shell, shrunk=shrunk, squares=finders.squares, holes=finders.holes, meet=meet):
        print(path)
