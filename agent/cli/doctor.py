"""``cryonaut doctor``: what this machine has, in one table."""

import json as json_
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple
from urllib.parse import urlparse

from cyclopts import Parameter

from agent import __version__
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.settings import Settings

Verdict = Literal["ok", "note", "fail"]
COLOURS: dict[Verdict, str] = {"ok": "green", "note": "yellow", "fail": "bold red"}


class Row(NamedTuple):
    """One finding."""

    verdict: Verdict
    what: str
    found: str


def doctor(
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what this machine has: Python, models and providers, disk, ports, keys, and whether the config is good.

    Exit status 1 when something would keep `cryonaut run` from starting.

    Such as:

    - `cryonaut doctor`
    - `cryonaut doctor --config config/krios.yaml`

    Parameters
    ----------
    config
        YAML file, or the name of a preset in `config/`.
    set_
        Change one setting: `section.key=value`.
    json
        Print JSON instead of a table.
    """
    from agent.cli.settings import find_config, load_settings

    rows = [*machine(), *runtime()]
    try:
        settings = load_settings(config, set_)
    except ConfigError as error:
        rows += [Row("fail", "config", text) for text in str(error).splitlines()]
    else:
        rows.append(Row("ok", "config", f"{find_config(config) or 'defaults'} (decisions {settings.decision_hash()})"))
        rows += [
            *models(settings),
            *disk(settings),
            *ports(settings),
            *keys(settings),
            *page(settings),
            *notices(settings),
        ]
    if json:
        print(json_.dumps([row._asdict() for row in rows], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("", "what", "found", title=f"cryonaut {__version__}", title_justify="left")
        for row in rows:
            table.add_row(f"[{COLOURS[row.verdict]}]{row.verdict}[/]", row.what, row.found)
        Console().print(table)
    if any(row.verdict == "fail" for row in rows):
        sys.exit(1)


def machine() -> Iterator[Row]:
    """Python, processor, memory."""
    old = sys.version_info < (3, 11)
    yield Row("fail" if old else "ok", "python", f"{platform.python_version()} at {sys.executable}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Row("ok", "machine", f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GB")
    if sys.platform == "win32":
        yield Row("fail", "system", "the daemon needs Linux; drivers run on Windows, too")


def runtime() -> Iterator[Row]:
    """ONNX Runtime and what it can use."""
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) == 2:
        text = "onnxruntime and onnxruntime-gpu exclude each other: uninstall both, then install one"
        yield Row("fail", "onnx runtime", text)
    try:
        import onnxruntime
    except ImportError:
        text = "not installed: classical finders only; `pip install 'cryonaut[cpu]'` or `'cryonaut[gpu]'`"
        yield Row("note", "onnx runtime", text)
        return
    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    yield Row("ok", "onnx runtime", f"{onnxruntime.__version__}, providers {', '.join(providers)}")
    nvidia = shutil.which("nvidia-smi") is not None
    if nvidia and "CUDA" not in providers:
        yield Row("note", "gpu", "an NVIDIA driver is here, but this ONNX Runtime cannot use it: install the gpu extra")
    elif not nvidia:
        yield Row("ok", "gpu", "none; everything runs on the CPU")


def models(settings: "Settings") -> Iterator[Row]:
    """The models that the config asks for."""
    from agent.inference import Analyst

    try:
        analyst = Analyst(settings.inference, settings.quality)
    except (KeyError, ImportError, OSError) as error:
        yield Row("fail", "models", str(error.args[0] if error.args else error))
        return
    for level, text in analyst.describe().items():
        yield Row("ok", f"model for {level} mag", text)
    for name, text in analyst.troubles.items():
        yield Row("note", f"model {name}", f"cannot be used, its fallback is at work: {text}")
    analyst.close()


def disk(settings: "Settings") -> Iterator[Row]:
    """Whether sessions can be written, and how much there is room for."""
    folder = settings.session.folder
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    free_gb = shutil.disk_usage(there).free / 1e9
    limit = settings.limits.free_disk_gb
    if not os.access(there, os.W_OK):
        yield Row("fail", "sessions", f"{there} cannot be written by this user (session.folder)")
    enough = free_gb > limit + 1
    frames = int((free_gb - limit) * 1e9 / 33.6e6)
    room = f"room for about {max(frames, 0):,} frames of 4096 x 4096" if enough else f"limits.free_disk_gb is {limit:g}"
    yield Row("ok" if enough else "fail", "disk", f"{free_gb:.0f} GB free at {there}, {room}")


def ports(settings: "Settings") -> Iterator[Row]:
    """Whether the endpoints are free."""
    ends = settings.endpoints
    for name in ("drivers", "control", "events", "health"):
        endpoint: str = getattr(ends, name)
        if not endpoint or endpoint.startswith(("ipc://", "inproc://")) or endpoint.endswith(":*"):
            continue
        url = urlparse(endpoint if "://" in endpoint else f"tcp://{endpoint}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((url.hostname or "127.0.0.1", url.port or 0))
            except OSError as error:
                text = f"{endpoint}: {error.strerror}; a daemon is running already, or another program has the port"
                yield Row("note", f"endpoint {name}", text)
                continue
        yield Row("ok", f"endpoint {name}", f"{endpoint} is free")


def keys(settings: "Settings") -> Iterator[Row]:
    """Keys, and whether they are needed."""
    from agent.keys import Keyring, is_loopback

    ends = settings.endpoints
    open_ends = [e for e in (ends.drivers, ends.control, ends.events) if not is_loopback(e)]
    if settings.keys is None:
        if open_ends:
            text = f"none, but {', '.join(open_ends)} can be reached from other machines: `cryonaut keys new --help`"
            yield Row("fail", "keys", text)
        else:
            yield Row("ok", "keys", "none needed: the daemon listens on this machine only")
        return
    try:
        ring = Keyring(settings.keys)
    except (ConfigError, OSError, ValueError) as error:
        yield Row("fail", "keys", str(error))
        return
    people = ", ".join(f"{peer.name} ({peer.role})" for peer in ring.peers.values()) or "nobody yet"
    yield Row("ok", "keys", f"{settings.keys}: {people}")


def page(settings: "Settings") -> Iterator[Row]:
    """The operator's page: where, and whether it may be there."""
    if not settings.web.address:
        yield Row("ok", "page", "none (web.address is empty)")
        return
    from agent.web.daemon_page import check
    from agent.web.serve import listen

    try:
        check(settings)
    except ConfigError as error:
        yield Row("fail", "page", str(error))
        return
    who = "with a token" if settings.keys is not None else "for everybody on this machine"
    scheme = "https" if settings.web.certificate is not None else "http"
    try:
        listen(settings.web.address).close()
    except OSError as error:
        text = f"{settings.web.address}: {error.strerror}; a daemon is running already, or another program has the port"
        yield Row("note", "page", text)
        return
    yield Row("ok", "page", f"{scheme}://{settings.web.address}/ is free, {who}")


def notices(settings: "Settings") -> Iterator[Row]:
    """Whether anybody would be told."""
    from agent.notifier import addresses, scheme

    if settings.notices.to is None:
        yield Row("note", "notices", "nobody is told when a session stops: set notices.to (docs/install.md)")
        return
    try:
        found = addresses(settings.notices.to)
    except ConfigError as error:
        yield Row("fail", "notices", str(error))
        return
    if not _version("apprise"):
        yield Row("note", "notices", "apprise is not installed: pip install 'cryonaut[notices]'")
        return
    schemes = ", ".join(sorted({scheme(address) for address in found}))
    yield Row("ok", "notices", f"{len(found)} addresses ({schemes}); `cryonaut notices test` tries them")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
