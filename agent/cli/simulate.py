"""``cryonaut simulate``: the virtual microscope by itself."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from agent.errors import ConfigError

app = App(name="simulate", help="Play the microscope: for demos, tests and trying a config without a grid.")


@app.command
def microscope(
    *,
    endpoint: str = "tcp://127.0.0.1:5870",
    seed: int = 1,
    speed: float = 60.0,
    grids: tuple[str, ...] = ("G1",),
    foil: Literal["carbon", "gold"] = "gold",
    lattice: Literal["square", "hexagonal"] = "square",
    ice: Literal["mixed", "good", "thick", "poor"] = "mixed",
    content: tuple[Literal["particles", "gold", "vesicles"], ...] = ("particles",),
    radius_um: float = 1000.0,
    ledger: Path = Path("microscope.sqlite"),
    fault: Annotated[tuple[str, ...], Parameter(negative="")] = (),
) -> None:
    """Start a virtual microscope with its driver and join the daemon at ENDPOINT; Ctrl-C ends it.

    Such as:

    - `cryonaut simulate microscope --seed 7 --speed 100`
    - `cryonaut simulate microscope --fault dark_frame:medium:2 --fault stuck_stage:move:9`

    Parameters
    ----------
    endpoint
        `endpoints.drivers` of the daemon.
    seed
        Another number is another grid.
    speed
        How much faster than a real microscope.
    grids
        Ids of the grids in the autoloader; the first is on the stage.
    foil
        Gold foil with bright holes, or carbon, where holes are faint.
    lattice
        Arrangement of the holes.
    ice
        How good the ice is over the grid.
    content
        What is in the ice.
    radius_um
        Radius of the part of the grid that has squares, in micrometres.
    ledger
        File in which the driver notes what it did, so that nothing is done twice.
    fault
        `kind:occasion[:at[:times]]`: what goes wrong, at which occasion.
    """
    from agent import logs
    from simulators.faults import parse
    from simulators.run import build, run
    from simulators.specimen import SpecimenSettings

    try:
        faults = tuple(parse(text) for text in fault)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    logs.configure()
    specimens = {
        grid_id: SpecimenSettings(
            seed=seed + number, grid_radius_um=radius_um, foil=foil, lattice=lattice, ice=ice, content=tuple(content)
        )
        for number, grid_id in enumerate(grids)
    }
    _, shell = build(specimens, endpoint=endpoint, ledger=ledger, speed=speed, faults=faults)
    try:
        run(shell)
    except KeyboardInterrupt:
        return
