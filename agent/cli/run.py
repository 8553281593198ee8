"""``cryonaut run``: the daemon."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def run(
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    log: Literal["auto", "json", "text"] = "auto",
    log_file: Path | None = None,
) -> None:
    """Run the daemon on one session; started again, the session goes on where it was.

    Such as:

    - `cryonaut run --config config/krios.yaml`
    - `cryonaut run -c demo --set session.name=tonight --set squares.per_grid=5`

    Parameters
    ----------
    config
        YAML file, or the name of a preset in `config/`.
    set_
        Change one setting for this run: `section.key=value`; may be given again.
    log
        Form of the log on stderr; auto is text on a terminal and JSON elsewhere.
    log_file
        Write the log into this file instead; it is set aside at 20 MB, and ten old ones are kept.
    """
    import asyncio
    import os
    import threading

    from agent import interpreter, logs
    from agent.cli.settings import load_settings
    from agent.daemon import Daemon
    from agent.memory import keep_frame_memory, spare_what_is_old

    async def serve(daemon: Daemon) -> None:
        loaded = asyncio.create_task(daemon.ready.wait())
        loaded.add_done_callback(lambda ready: None if ready.cancelled() else spare_what_is_old())
        try:
            await daemon.run()
        finally:
            loaded.cancel()

    keep_frame_memory()
    interpreter.share_fairly()
    settings = load_settings(config, set_)
    stream = logs.RotatingFile(log_file) if log_file is not None else None
    logs.configure(json=None if log == "auto" else log == "json", stream=stream)
    asyncio.run(serve(Daemon(settings)))
    if any(thread.name.startswith("model") for thread in threading.enumerate()):
        os._exit(0)  # a model that hangs in its thread would keep the process for ever; everything is on disk
