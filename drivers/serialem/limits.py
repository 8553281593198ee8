"""How long each command of SerialEM may take: it answers when an action is finished and says nothing in between."""

from collections.abc import Mapping
from typing import Literal

CommandClass = Literal["quick", "move", "camera", "task", "long", "montage"]

# Seconds. Taking control alone may take SerialEM five, so nothing is below 15.
DEFAULT_LIMITS_S: dict[CommandClass, float] = {
    "quick": 15.0,
    "move": 120.0,
    "camera": 180.0,
    "task": 600.0,
    "long": 3_600.0,
    "montage": 14_400.0,
}

CLASSES: dict[CommandClass, tuple[str, ...]] = {
    "move": (
        "MoveStage", "MoveStageTo", "MoveToNavItem", "TiltTo", "TiltBy", "ResetImageShift", "SetImageShift",
        "ImageShiftByMicrons", "ImageShiftByPixels", "ImageShiftByUnits", "ImageShiftByStageDiff", "GoToLowDoseArea",
        "GoToImagingState", "SetLowDoseMode", "SetMag", "SetMagIndex", "SetColumnOrGunValve", "ScreenUp", "ScreenDown",
        "SetBeamBlank", "SetApertureSize", "RemoveAperture", "ReInsertAperture", "NormalizeLenses", "AlignTo",
        "CropCenterToSize",
        "Save", "OpenNewFile", "CloseFile", "NewMap", "SaveNavigator", "MergeNavFile", "OpenNavigator", "FFT",
    ),
    "camera": ("View", "Search", "Record", "Preview", "Trial", "Focus"),
    "task": (
        "Eucentricity", "AutoFocus", "DriftWaitTask", "RealignToNavItem", "AutoCenterBeam", "RefineZLP", "Ctfplotter",
        "CtfFind", "FindHoles", "AutoContourGridSquares", "AlignBetweenMags", "FindAndCenterOneHole",
    ),
    "long": (
        "LoadCartridge", "UnloadCartridge", "LongOperation", "ManageDewarsAndPumps", "UpdateHWDarkRef", "Delay",
        "MultipleRecords", "Call", "CallFunction", "RealignReloadedGrid",
    ),
    "montage": ("Montage", "SetupFullMontage", "SetupPolygonMontage"),
}  # fmt: skip
_CLASS_OF: dict[str, CommandClass] = {name: kind for kind, names in CLASSES.items() for name in names}


def limit_s(command: str, limits_s: Mapping[str, float] | None = None) -> float:
    """Time limit of a command in seconds; ``limits_s`` are the site's own, by class."""
    kind: CommandClass = _CLASS_OF.get(command, "quick")
    return (limits_s or {}).get(kind, DEFAULT_LIMITS_S[kind])
