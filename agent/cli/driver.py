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
