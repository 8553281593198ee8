"""Which grid is where: the autoloader's inventory, kept on disk and compared before every grid.

SerialEM's ``ReportSlotStatus`` says of each slot whether it is occupied; the home slot of the grid on the stage reads
empty. Someone may change the cassette while a grid stays on the stage: a session that went on then would load, and
image, the wrong grid under the right name.
"""

from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace

from agent.messages import ErrorKind
from drivers.base import WorkError
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import MissingCommandError, ScriptError

log = structlog.get_logger("serialem")
OCCUPIED, EMPTY = 1, 0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was last known of the autoloader."""

    session_id: str = ""
    grid_id: str = ""  # on the stage, as far as this driver loaded it
    slot: int = 0  # its home; 0: none
    slots: dict[int, tuple[int, str]] = {}  # status and name


class Cassette:
    """Keeps the inventory of one session.

    Parameters
    ----------
    client
        SerialEM.
    path
        File in which it is kept, so that a restarted driver still knows the grid on the stage.
    slots
        How many slots are watched; 0 means that there is no autoloader.
    grid_id, slot
        Grid on the stage at the start, and its home slot, where the site names them.
    """

    def __init__(self, client: SerialEMClient, path: Path, slots: int, grid_id: str = "", slot: int = 0) -> None:
        self.client = client
        self.slots = slots
        self._path = path
        self._at_start, self._home = grid_id, slot
        self.seen = Seen(grid_id=grid_id, slot=slot)
        try:
            self.seen = msgspec.json.decode(path.read_bytes(), type=Seen)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            log.warning("cassette.unreadable", file=str(path), error=str(error), then="starting without it")

    @property
    def grid_id(self) -> str:
        """The grid on the stage; empty when nobody knows."""
        return self.seen.grid_id

    def inventory(self) -> dict[int, tuple[int, str]]:
        """Status and name of each slot; empty where SerialEM cannot say."""
        found: dict[int, tuple[int, str]] = {}
        for slot in range(1, self.slots + 1):
            try:
                answer = self.client.call("ReportSlotStatus", slot)
            except MissingCommandError:
                return {}
            except ScriptError as error:
                log.info("cassette.no_status", slot=slot, error=str(error))
                return {}
            values = answer if isinstance(answer, tuple) else (answer,)
            if len(values) >= 4:  # JEOL: id, place (3 is the stage), slot, type, angle, name
                return {}
            status = int(values[0]) if values and isinstance(values[0], int | float) else -1
            name = str(values[1]) if len(values) > 1 else ""
            if status < 0:
                break
            found[slot] = (status, name)
        return found

    def check(self, session_id: str) -> dict[int, tuple[int, str]]:
        """The inventory, if it is still that of this session's cassette; a new session begins with what is there.

        Raises
        ------
        WorkError
            With what changed, when the cassette or the grid on the stage was exchanged by somebody else.
        """
        now = self.inventory()
        before = self.seen.slots
        changed = [
            f"slot {slot} was {_words(before[slot])} and is {_words(now[slot])}"
            for slot in sorted(before.keys() & now.keys())
            if not _same(before[slot], now[slot])
        ]
        if session_id != self.seen.session_id:
            home = self._home if changed else self.seen.slot or self._home
            self._keep(Seen(session_id=session_id, grid_id=self._at_start, slot=home, slots=now))
        elif changed:
            raise WorkError(
                ErrorKind.LOAD_FAILED,
                f"the cassette or the grid on the stage was changed since this session began: {'; '.join(changed)}."
                " Put it back, or start a new session",
                0.0,
            )
        return now

    def may_load(self, session_id: str, grid_id: str, slot: int) -> bool:
        """Whether a grid has to be loaded: False when it is on the stage already.

        Raises
        ------
        WorkError
            If its slot is empty, or the cassette was changed.
        """
        now = self.check(session_id)
        if now.get(slot, (OCCUPIED, ""))[0] != EMPTY:
            return True
        home = self.seen.slot or self._asked()
        if home == slot and self.seen.grid_id in (grid_id, ""):
            self._keep(replace(self.seen, grid_id=grid_id, slot=slot))
            return False
        raise WorkError(
            ErrorKind.LOAD_FAILED,
            f"slot {slot} of grid {grid_id} is empty; if that grid is on the stage already, set"
            f" grids.on_stage_slot: {slot} in the driver's config",
            0.0,
        )

    def _asked(self) -> int:
        """Home slot of the grid on the stage, where SerialEM (4.3) can say it; else 0."""
        if not self.client.has("ReportLoadedSlot"):
            return 0
        try:
            return int(self.client.number("ReportLoadedSlot"))
        except ScriptError as error:
            log.info("cassette.no_loaded_slot", error=str(error))
            return 0

    def leaves(self) -> None:
        """The stage's grid is about to be exchanged: until that is done nobody knows what is there."""
        self._keep(replace(self.seen, grid_id="", slot=0, slots={}))

    def failed(self) -> None:
        """The exchange failed: how the cassette is now is compared from here on; nobody knows what is on the stage."""
        self._keep(replace(self.seen, slots=self.inventory()))

    def loaded(self, grid_id: str, slot: int) -> None:
        """A grid was loaded: this is how the cassette is from now on."""
        self._keep(replace(self.seen, grid_id=grid_id, slot=slot, slots=self.inventory()))

    def _keep(self, seen: Seen) -> None:
        self.seen = seen
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(seen))
        fresh.replace(self._path)


def _same(before: tuple[int, str], now: tuple[int, str]) -> bool:
    return before[0] == now[0] and (before[1] == now[1] or not before[1] or not now[1])


def _words(slot: tuple[int, str]) -> str:
    status = {OCCUPIED: "occupied", EMPTY: "empty"}.get(slot[0], f"in state {slot[0]}")
    return f"{status} ({slot[1]})" if slot[1] else status
