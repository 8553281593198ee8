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


@app.command(version_flags=())
def serialem(
    *,
    port: int = 48888,
    host: str = "127.0.0.1",
    version: Literal["4.0", "4.1", "4.2", "4.3"] = "4.2",
    seed: int = 1,
    speed: float = 60.0,
    grids: tuple[str, ...] = ("G1",),
    foil: Literal["carbon", "gold"] = "gold",
    lattice: Literal["square", "hexagonal"] = "square",
    ice: Literal["mixed", "good", "thick", "poor"] = "mixed",
    content: tuple[Literal["particles", "gold", "vesicles"], ...] = ("particles",),
    radius_um: float = 1000.0,
    session: Path | None = None,
    folder: Path | None = None,
    fault: Annotated[tuple[str, ...], Parameter(negative="")] = (),
) -> None:
    """Play SerialEM's external-Python socket in front of a virtual microscope, or of a recorded session.

    It prints one line when it listens, and serves until Ctrl-C. Press STOP from outside with a line `stop` on its
    standard input, or with the signal SIGUSR1 (`kill -USR1 PID`). Other lines: `busy`, `free`, `valves closed`,
    `valves open`, `dewars filling`, `dewars full`, `fail COMMAND TEXT` (its next run fails), `log` (the commands so
    far), `quit`.

    At the start buffer A holds an overview, M, N, O, P a small image each of type 0, 1, 2, 6 (uint8, int16, float32,
    uint16), S is empty, and Q is free to be overwritten: `PutImageInBuffer` and `Copy` may go there. Such as:

    - `cryonaut simulate serialem --port 0 --seed 7 --speed 100`
    - `cryonaut simulate serialem --version 4.1 --fault autofocus_fails:focus:2`
    - `cryonaut simulate serialem --session sessions/monday`

    Parameters
    ----------
    port
        TCP port; 0 is any free one, which is printed.
    host
        Address to listen at. The protocol has no password: keep it on this machine.
    version
        Release of SerialEM to play: it decides which commands exist.
    seed
        Another number is another grid.
    speed
        How much faster than a real microscope.
    grids
        Ids of the grids in slots 1, 2, ... of the autoloader; the first is on the stage.
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
    session
        Folder of a recorded session (journal.sqlite and frames/), which is only read: its images come instead of
        those of a virtual grid, the nearest in place and magnification; what was never recorded is a script error
        that says so. Seed, grids, foil, lattice, ice, content and radius then mean nothing.
    folder
        Where files that SerialEM writes go; a temporary folder unless given.
    fault
        `kind:occasion[:at[:times]]`: what goes wrong, at which occasion.
    """
    import sys
    from functools import partial

    from simulators.clock import SimClock
    from simulators.faults import FaultPlan, parse
    from simulators.microscope import VirtualMicroscope
    from simulators.replay import Recording, ReplayedMicroscope
    from simulators.serialem import SerialEMServer
    from simulators.serialem.console import serve
    from simulators.specimen import SpecimenSettings

    try:
        faults = tuple(parse(text) for text in fault)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    clock, plan = SimClock(speed), FaultPlan(faults)
    slots: dict[int, str] | None = None
    scope: VirtualMicroscope
    if session is not None:
        recording = Recording.open(session)
        scope = ReplayedMicroscope(recording, clock, plan)
        slots = recording.slots
    else:
        specimens = {
            grid_id: SpecimenSettings(
                seed=seed + number,
                grid_radius_um=radius_um,
                foil=foil,
                lattice=lattice,
                ice=ice,
                content=tuple(content),
            )
            for number, grid_id in enumerate(grids)
        }
        scope = VirtualMicroscope(specimens, clock=clock, faults=plan)
    server = SerialEMServer(scope, port, version, host=host, folder=folder, slots=slots)
    try:
        serve(server, sys.stdin, partial(print, flush=True))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error}; choose another --host or --port") from error


@app.command
def leginon(
    *,
    url: str = "http://127.0.0.1:8000",
    scripts: Path | None = None,
    seed: int = 1,
    speed: float = 60.0,
    squares: int = 3,
    exposures: int = 6,
    foil: Literal["carbon", "gold"] = "gold",
    ice: Literal["mixed", "good", "thick", "poor"] = "mixed",
    radius_um: float = 800.0,
    folder: Path | None = None,
) -> None:
    """Play Leginon in front of a virtual microscope: one session of one grid, by HTTP or by the external command.

    Tiles of the atlas, square targets, hole images, exposures, what the pipeline measures, and the learned order after
    each square. It ends with the warnings that would stand in Leginon's log; any makes the exit status 1. Such as:

    - `cryonaut simulate leginon --url http://127.0.0.1:8000 --squares 4`
    - `cryonaut simulate leginon --scripts /opt/cryonaut-leginon`

    Parameters
    ----------
    url
        What ptolemy.cfg names: where `cryonaut driver leginon` listens.
    scripts
        Folder with the scripts of `cryonaut driver leginon install`: they are used instead of HTTP.
    seed
        Another number is another grid.
    speed
        How much faster than a real microscope.
    squares
        Squares to visit.
    exposures
        Exposures in each of them.
    foil
        Gold foil with bright holes, or carbon, where holes are faint.
    ice
        How good the ice is over the grid.
    radius_um
        Radius of the atlas, in micrometres.
    folder
        Where images for the external command go; a temporary folder unless given.
    """
    import sys
    import tempfile
    from functools import partial

    from simulators.leginon.program import Pace
    from simulators.leginon.run import NoServerError, play
    from simulators.specimen import SpecimenSettings

    pace = Pace(radius_um=radius_um, squares=squares, exposures=exposures)
    specimen = SpecimenSettings(seed=seed, foil=foil, ice=ice)
    tell = partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="cryonaut-leginon-") as images:
        try:
            record, warnings = play(
                specimen,
                url="" if scripts is not None else url,
                scripts=scripts.absolute() if scripts is not None else None,
                images=folder.absolute() if folder is not None else Path(images),
                pace=pace,
                speed=speed,
                tell=tell,
            )
        except NoServerError as error:
            raise ConfigError(str(error)) from error
    good = sum(ctf is not None and ctf <= 6.0 for _, ctf in record.exposed.values())
    tell(f"{len(record.visited)} squares visited, {len(record.exposed)} exposures, {good} of them good")
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if warnings:
        sys.exit(1)


@app.command
def cell(
    name: Literal["train-1", "train-2", "naive-1", "naive-2"] = "train-1",
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("cell"),
    region: Annotated[tuple[int, ...], Parameter(negative="")] = (0,),
    edge: int = 176,
    voxel_size: float = 8.0,
) -> None:
    """Write a FIB-SEM volume of a simulated cell with its truth, to try segmentation without data of your own.

    Such as:

    - `cryonaut simulate cell train-1 --out cell`
    - `cryonaut simulate cell naive-1 --region 50 --region 60 --out naive`, then
      `cryonaut train organelles --finetune --data naive/data.yaml`

    Parameters
    ----------
    name
        One of two cells that the shipped network learned from, or of two that look otherwise.
    out
        Folder for `NAME-REGION.tif`, a label volume for each structure, the true sizes of pores and pits
        (`NAME-REGION-truth.json`), and `data.yaml`, which names them for `cryonaut train organelles`.
    region
        Which region of the cell, any number; with more than one the last is held out in `data.yaml`.
    edge
        Voxels along each axis.
    voxel_size
        In nanometres.
    """
    from agent.cli.simulate_cell import write

    if edge < 64 or not 2 <= voxel_size <= 20:
        raise ConfigError(f"--edge {edge} --voxel-size {voxel_size:g}: at least 64 voxels of 2 to 20 nm")
    print(write(name, region, (edge, edge, edge), voxel_size, out))
