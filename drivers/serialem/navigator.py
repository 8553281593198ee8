"""The daemon's answers as Navigator items: points with label, note, colour, Acquire, and groups for multi-shot."""

import math
import zlib

import structlog

from agent.messages import Target, Targets
from drivers.serialem.client import SerialEMClient
from drivers.serialem.errors import MissingCommandError, ScriptError
from drivers.serialem.geometry import CORNER
from drivers.serialem.navfile import NavItem, write_nav
from drivers.serialem.settings import AdvisorSettings

log = structlog.get_logger("serialem")
LABEL = 16  # characters that SerialEM keeps of a label
NOTE = 250
FIRST_GROUP, GROUPS = 20_000, 1_000_000_000  # ids of groups in files, where SerialEM gives no unique ones
SAME_UM = 1.0  # an item of the same label this near is the same place
RED, GREEN, BLUE, YELLOW = 0, 1, 2, 3
OPEN_STATES = ("found", "queued")


def label_of(target: Target) -> str:
    """What stands in the Navigator's list: the end of the area's id, as the beginning is the same for all."""
    return target.area_id[-LABEL:]


def note_of(target: Target) -> str:
    """Score and reason, as a person would write them beside the point."""
    head = f"Cryonaut {target.score:.2f}"
    state = "" if target.state in OPEN_STATES else target.state
    parts = [part for part in (target.label if target.label != "unknown" else "", state, target.why) if part]
    return ": ".join([head, ", ".join(parts)])[:NOTE] if parts else head


def colour_of(target: Target, acquire_above: float) -> int:
    """Green what is wanted, yellow what is middling, red what is not, blue what was done."""
    if target.state in ("done", "exposed", "mapped"):
        return BLUE
    if target.state in ("rejected", "skipped", "unknown"):
        return RED
    return GREEN if target.score >= acquire_above else YELLOW if target.score >= 0.5 * acquire_above else RED


def group_key(target: Target) -> str:
    """Which points belong together: a planned group, else all holes of a square, as SerialEM's own finder has it."""
    square, _, hole = target.area_id.rpartition("-H")
    if not square or not hole:
        return "" if target.group is None else f"{target.area_id}:{target.group}"
    return square if target.group is None else f"{square}:{target.group}"


def is_wanted(target: Target, acquire_above: float) -> bool:
    """Whether Acquire is switched on."""
    return target.state in OPEN_STATES and target.score >= acquire_above


class Navigator:
    """Puts targets into SerialEM's Navigator; asked again for the same places, it changes the items it made.

    Parameters
    ----------
    client
        SerialEM.
    settings
        Thresholds.
    """

    def __init__(self, client: SerialEMClient, settings: AdvisorSettings) -> None:
        self.client = client
        self.settings = settings
        self._groups: dict[str, int] = {}

    def put(self, targets: Targets, *, buffer: str, z_um: float) -> tuple[int, int]:
        """Add or change the points of one answer.

        Parameters
        ----------
        targets
            The answer.
        buffer
            Buffer that still holds its frame; empty when none does: then points are added by stage position.
        z_um
            Height of the stage at that frame.

        Returns
        -------
        tuple
            How many points were added, and how many were changed.
        """
        if self.client.number("ReportIfNavOpen") == 0:
            self.client.call("OpenNavigator")
        if not self.client.has("AddStagePosAsNavPoint"):
            return self._merge(targets, z_um), 0
        chosen = [t for t in targets.targets if t.score >= self.settings.least_score][: self.settings.most_points]
        added = changed = 0
        for target in chosen:
            index = self._known(target)
            if index:
                changed += 1
            else:
                group = self._group(target)
                index = self._add(target, buffer, z_um, group)
                added += 1
            self._dress(index, target)
        return added, changed

    def _merge(self, targets: Targets, z_um: float) -> int:
        """For SerialEM 4.0, which cannot add points one by one: a file of them, merged by SerialEM."""
        folder, above = self.settings.nav_folder, self.settings.acquire_above
        if folder is None:
            raise MissingCommandError(
                "this SerialEM takes points from files only: set advisor.nav_folder to a folder that both see"
            )
        chosen = [t for t in targets.targets if t.score >= self.settings.least_score][: self.settings.most_points]
        new = [target for target in chosen if not self._known(target)]
        points = [
            NavItem.point(
                label_of(target),
                target.x_um,
                target.y_um,
                z_um,
                note=note_of(target),
                colour=colour_of(target, above),
                acquire=is_wanted(target, above),
                group=FIRST_GROUP + zlib.crc32(key.encode()) % GROUPS if (key := group_key(target)) else 0,
            )
            for target in new
        ]
        path = folder / f"cryonaut_{targets.frame_id}.nav"
        write_nav(path, points)
        self.client.call("MergeNavFile", str(path))
        return len(points)

    def _known(self, target: Target) -> int:
        """Index of the item that stands for this place already, else 0."""
        index = int(self.client.number("NavIndexWithLabel", label_of(target)))
        if not index:
            return 0
        there = self.client.numbers("ReportOtherItem", index, least=3)
        return index if math.hypot(there[1] - target.x_um, there[2] - target.y_um) < SAME_UM else 0

    def _group(self, target: Target) -> int:
        """SerialEM's id of the group, the same for holes of a square that come with a later answer; 0 is none."""
        key = group_key(target)
        if key and key not in self._groups:
            self._groups[key] = int(self.client.number("GetUniqueNavID"))
        return self._groups[key] if key else 0

    def _add(self, target: Target, buffer: str, z_um: float, group: int) -> int:
        quietly = 1  # the list is drawn once, with the last change
        if buffer:
            try:
                x, y = target.x + CORNER, target.y + CORNER
                return int(self.client.number("AddImagePosAsNavPoint", buffer, x, y, z_um, group, quietly))
            except ScriptError as error:  # such as a place outside of every piece of a montage
                log.info("navigator.by_stage", area=target.area_id, why=str(error))
        return int(self.client.number("AddStagePosAsNavPoint", target.x_um, target.y_um, z_um, group, quietly))

    def _dress(self, index: int, target: Target) -> None:
        above = self.settings.acquire_above
        self.client.call("ChangeItemLabel", index, label_of(target))
        self.client.call("ChangeItemNote", index, note_of(target))
        self.client.call("ChangeItemColor", index, colour_of(target, above))
        try:
            self.client.call("SetItemAcquire", index, int(is_wanted(target, above)))
        except (ScriptError, MissingCommandError) as error:  # refused while the Navigator is acquiring there
            log.info("navigator.acquire", area=target.area_id, why=str(error))
