"""The hands at the microscope: one piece of work at a time, in a thread of its own, and how it ended."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from agent.messages import Command, CommandResult, ErrorKind, Expose, Frame
from drivers.base import CancelledWork, Desk, Microscope, Shot, WorkError

log = structlog.get_logger("driver")


class Hands:
    """Lets the hooks of a microscope work; ``cancel`` tells the one at work to end early.

    ``interrupted`` says that the driver ended while a hook was at work.
    """

    def __init__(self, microscope: Microscope) -> None:
        self.microscope = microscope
        self.cancel = threading.Event()
        self.interrupted = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="microscope")

    async def carry_out(self, command: Command, send: Callable[[Shot, str], Frame]) -> CommandResult:
        """Do a command within its time, and say how it ended; ``send`` hands in an image of an area."""
        begun = time.monotonic()
        desk = Desk(send, self.cancel)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(command.timeout_s):
                dose = await loop.run_in_executor(self._thread, self.microscope.carry_out, command.work, desk)
        except asyncio.CancelledError:
            self.interrupted = True
            raise
        except TimeoutError:
            self.cancel.set()
            text = f"not finished within {command.timeout_s:g} s"
            status = "unknown" if isinstance(command.work, Expose) else "failed"
            return self.result(command, status, error=ErrorKind.COMMAND_TIMEOUT, message=text, begun=begun)
        except CancelledWork:
            # an image that was handed in had its dose, whenever the cancel came
            spent = command.work.dose_e_per_a2 if isinstance(command.work, Expose) and desk.handed_in else 0.0
            return self.result(command, "cancelled", message="cancelled while under way", dose=spent, begun=begun)
        except WorkError as error:
            return self.result(
                command, "failed", error=error.kind, message=str(error), dose=error.dose_e_per_a2, begun=begun
            )
        except Exception as error:
            log.exception("microscope.defect", command=command.command_id)
            text = f"{type(error).__name__}: {error}"
            return self.result(command, "failed", error=ErrorKind.SCRIPT, message=text, begun=begun)
        return self.result(command, "done", message="; ".join(desk.notes), dose=dose, begun=begun)

    def result(
        self,
        command: Command,
        status: Any,
        *,
        error: ErrorKind | None = None,
        message: str = "",
        dose: float | None = None,
        begun: float | None = None,
    ) -> CommandResult:
        """How a command ended, with the stage as it is; ``begun`` on the monotonic clock."""
        return CommandResult(
            command_id=command.command_id,
            session_id=command.session_id,
            status=status,
            error=error,
            message=message[:2000],
            stage=self.microscope.state().stage,
            dose_e_per_a2=dose,
            elapsed_s=round(time.monotonic() - begun, 3) if begun is not None else 0.0,
        )

    async def rest(self) -> None:
        """Wait for the hook at work; it may need the loop of the driver to come to its end."""
        await asyncio.to_thread(self._thread.shutdown)
