"""The daemon of a replay as a program of its own, which may be killed: ``python -m simulators.replay.program CONFIG``.

Whose answer's turn it is comes on stdin, one frame id in a line; an empty line says that from now on none has to wait.
When stdin ends, the replay is gone, and so is this program.
"""

import asyncio
import sys
from pathlib import Path

from agent import logs
from agent.daemon import Daemon
from agent.settings import Settings, load
from simulators.replay.turns import PacedAnalyst, turn_in


async def serve(settings: Settings) -> None:
    """Run the daemon until it is stopped or nobody tells whose turn it is any more."""
    analyst = PacedAnalyst(settings.inference, settings.quality)
    daemon = Daemon(settings, analyst=analyst)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def listen() -> None:
        while text := await reader.readline():
            await analyst.allow(turn_in(text))
        daemon.stop()

    listening = asyncio.create_task(listen())
    try:
        await daemon.run()
    finally:
        listening.cancel()


if __name__ == "__main__":
    logs.configure(json=True, level="debug")
    asyncio.run(serve(load(Path(sys.argv[1]))))
