"""The manifest of a recording: which versions, models and settings made it, and how much of it there has to be."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from agent import __version__
from agent.whole import whole

FILE_NAME = "manifest.json"
FORMAT = 1
PACKAGES = ("numpy", "scipy", "opencv-python", "opencv-python-headless", "scikit-learn", "onnxruntime")


class FrameSum(msgspec.Struct, frozen=True, kw_only=True):
    """One frame file: its size on disk and the digest of its pixels (XXH3-128)."""

    file: str
    bytes: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the journal as ``manifest.json``.

    ``configs`` maps the hash that the journal's events carry to the settings behind it; ``events`` and ``chain`` are
    number and hash of the last row. While the daemon runs, and after a crash, ``ended`` is false and only ``configs``,
    ``versions`` and ``models`` are to be relied on: the journal then has more rows than the manifest says.
    """

    format: int = FORMAT
    session_id: str
    name: str
    software: str = f"cryonaut {__version__}"
    ended: bool = False
    events: int = 0
    chain: str = ""
    configs: dict[str, dict[str, Any]] = {}
    models: dict[str, str] = {}
    versions: dict[str, str] = {}
    frames: tuple[FrameSum, ...] = ()
    left_out: dict[str, str] = {}  # what a trimmed copy does not hold any more, and why
    source: str = ""  # of an import or a trimmed copy: where it came from
    odd: tuple[str, ...] = ()  # of an import: what was missing or strange


def versions() -> dict[str, str]:
    """Versions of what can change a model's answer."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_manifest(folder: Path) -> tuple[Manifest | None, str]:
    """The manifest in a session folder and what is wrong with it; (None, "") where there is none."""
    path = folder / FILE_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path}: cannot be read: {error.strerror or error}"
    try:
        found = msgspec.json.decode(raw, type=Manifest)
    except (ValueError, RecursionError) as error:
        return None, f"{path}: no manifest: {' '.join(str(error).split())[:200]}"
    if found.format > FORMAT:
        return None, f"{path}: format {found.format}; this version reads up to {FORMAT}: update cryonaut"
    return found, ""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest as a whole: a reader sees the old one or the new one.

    Raises
    ------
    OSError
        If the disk is full or cannot be written.
    """
    with whole(folder / FILE_NAME) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
