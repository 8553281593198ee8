"""``cryonaut demo``: a whole simulated session, watched live, with a report at the end."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Literal


def demo(
    *,
    seed: int = 7,
    speed: float = 150.0,
    squares: int | None = None,
    holes: int | None = None,
    foil: Literal["carbon", "gold"] = "gold",
    microscope: Literal["serialem", "leginon", "virtual"] = "serialem",
    folder: Path = Path("sessions"),
    name: str = "",
) -> None:
    """Run a complete simulated session of one grid: atlas, squares, holes, micrographs, report.

    A virtual microscope and the daemon start as programs of their own and speak over real sockets; nothing else is
    needed. While it runs, try `cryonaut control ...` in another terminal; the endpoint is shown.

    Such as:

    - `cryonaut demo`
    - `cryonaut demo --seed 3 --foil carbon --squares 3 --holes 12`
    - `cryonaut demo --microscope leginon`

    Parameters
    ----------
    seed
        Another number is another grid.
    speed
        How much faster than a real microscope.
    squares
        Squares to visit (default: as in config/demo.yaml).
    holes
        Holes to expose in each square (default: as in config/demo.yaml).
    foil
        Gold foil with bright holes, or carbon, where holes are faint.
    microscope
        serialem: a simulated SerialEM, reached over its own socket by the driver that a real one would have; leginon: a
        simulated Leginon leads and asks the driver by its own HTTP calls; virtual: the virtual microscope with a driver
        of its own.
    folder
        Where session folders are made.
    name
        Name of the session; by default demo and the time.
    """
    from contextlib import ExitStack

    from rich.console import Console

    from agent.cli.demo_session import leginon_config, program, serialem_config, watch
    from agent.cli.settings import load_settings
    from agent.ports import free_ports
    from agent.settings import preset_folder

    name = name or datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    *ports, page_port, scope_port = free_ports(5)
    changes = [
        f"session.name={name}",
        f"session.folder={folder}",
        f"session.simulated_speed={speed:g}",
        *(
            f"endpoints.{end}=tcp://127.0.0.1:{port}"
            for end, port in zip(("drivers", "control", "events"), ports, strict=True)
        ),
        "endpoints.health=''",
        f"web.address=127.0.0.1:{page_port}",
    ]
    led = microscope == "leginon"
    config = preset_folder() / ("leginon-session.yaml" if led else "demo.yaml")
    if led:
        squares, holes = squares or 4, holes or 8
    changes += [f"squares.per_grid={squares}"] if squares is not None else []
    changes += [f"holes.per_square={holes}"] if holes is not None else []
    settings = load_settings(config, changes)
    session = folder / name
    session.mkdir(parents=True, exist_ok=True)
    run = ["run", "--config", str(config), *(part for change in changes for part in ("--set", change))]
    look = ("--seed", str(seed), "--speed", str(speed), "--foil", foil)
    programs = {"daemon": run}
    if microscope == "virtual":
        ledger = ("--ledger", str(session / "driver.sqlite"))
        programs["microscope"] = ["simulate", "microscope", "--endpoint", settings.endpoints.drivers, *look, *ledger]
    elif led:
        driver = session / "driver.yaml"
        driver.write_text(leginon_config(settings.endpoints.drivers, session, scope_port), encoding="utf-8")
        programs["driver"] = ["driver", "leginon", "--config", str(driver), "--log", "json"]
        count = ("--squares", str(squares), "--exposures", str(holes))
        programs["leginon"] = ["simulate", "leginon", "--url", f"http://127.0.0.1:{scope_port}", *look, *count]
    else:
        driver = session / "driver.yaml"
        driver.write_text(serialem_config(settings.endpoints.drivers, scope_port, session), encoding="utf-8")
        files = ("--folder", str(session / "serialem"))
        programs["serialem"] = ["simulate", "serialem", "--port", str(scope_port), *look, *files]
        programs["driver"] = ["driver", "serialem", "--config", str(driver), "--log", "json"]
    console = Console()
    with ExitStack() as stack:
        running = {
            title: stack.enter_context(program(call, session / f"{title}.log")) for title, call in programs.items()
        }
        ended = watch(console, settings, running, session, "leginon" if led else "")
    from agent.report import render

    report = render(session)
    console.print(f"\nsession: {session.resolve()}", soft_wrap=True, highlight=False)
    console.print(f"report:  {report.resolve().as_uri()}", soft_wrap=True, highlight=False)
    if not ended:
        sys.exit(1)
