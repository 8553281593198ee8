"""Sends notices by apprise (mail, Slack, Teams, webhooks …), from a thread of its own, until they are through.

The addresses hold passwords: they stand in a file of their own that only the daemon can read, and only their schemes
(``mailto``, ``slack``) are ever logged or shown.
"""

import asyncio
import contextlib
import hashlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from agent.core import Core
from agent.errors import ConfigError
from agent.keys import check_mode
from agent.metrics import METRICS
from agent.notices import Mood, Notice, Told, conditions
from agent.settings import NoticeSettings

log = structlog.get_logger("notices")
LOOK_S = 1.0
SEND_WITHIN_S = 60.0
AGAIN_S = (20.0, 60.0, 180.0, 600.0)
MOST_WAITING = 200
FILE_NAME = "notices.json"
KINDS: dict[Mood, str] = {"alarm": "failure", "warning": "warning", "info": "info"}


class Kept(msgspec.Struct):
    """What survives a restart: what was told, and what still has to be sent (to whom: a hash of the address)."""

    told: list[str] = []
    waiting: list[tuple[str, Notice]] = []


def mark(address: str) -> str:
    """Tells addresses apart without their secrets."""
    return hashlib.sha256(address.encode()).hexdigest()[:12]


def addresses(file: Path) -> list[str]:
    """The addresses in a file: one a line, `#` begins a comment.

    Raises
    ------
    ConfigError
        If the file cannot be read, others can read it, or it holds nothing.
    """
    try:
        check_mode(file)
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"notices.to: {file}: {error}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"notices.to: {file}: holds no address; one a line, such as mailto://user:password@host")
    return found


def scheme(address: str) -> str:
    """The part of an address that is no secret."""
    return address.partition(":")[0][:20]


def send(address: str, notice: Notice) -> str:
    """Send one notice to one address; why it failed, or an empty text. Takes as long as the network takes."""
    try:
        import apprise
    except ImportError:
        return "apprise is not installed: pip install 'cryonaut[notices]'"
    service = apprise.Apprise()
    if not service.add(address):
        return f"{scheme(address)}: is no address that apprise knows (https://github.com/caronc/apprise)"
    when = datetime.fromtimestamp(notice.utc, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    body = f"{notice.text}\n{when}, {socket.gethostname()}"
    if service.notify(body=body, title=notice.title, notify_type=apprise.NotifyType(KINDS[notice.mood])):
        return ""
    return f"{scheme(address)}: was not accepted; `cryonaut notices test` tries it again"


class Notifier:
    """Follows a session and tells people; what cannot be sent is tried again, and is said on the page meanwhile.

    Raises
    ------
    ConfigError
        If the file of addresses cannot be used.
    """

    def __init__(
        self, core: Core, folder: Path, settings: NoticeSettings, sender: Callable[[str, Notice], str] = send
    ) -> None:
        self.core = core
        self.settings = settings
        self.file = folder / FILE_NAME
        self.addresses: Sequence[str] = addresses(settings.to) if settings.to is not None else ()
        self.trouble = ""
        self.waiting: deque[tuple[str, Notice]] = deque(maxlen=MOST_WAITING)
        self._sender = sender
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="notices")
        before = self._read()
        self._told = Told(core.state.name or folder.name, frozenset(before.told))
        by_mark = {mark(address): address for address in self.addresses}
        self.waiting.extend((by_mark[m], notice) for m, notice in before.waiting if m in by_mark)
        self._news = asyncio.Event()

    def lamp(self) -> tuple[str, str]:
        """State and words of the page's lamp."""
        if not self.addresses:
            return "off", "nobody is told of anything: set notices.to"
        if self.trouble:
            return "bad", f"cannot send: {self.trouble}"
        return "well", f"to {', '.join(sorted({scheme(address) for address in self.addresses}))}"

    @property
    def told(self) -> set[str]:
        """What was told and is not over."""
        return set(self._told.told)

    async def watch(self) -> None:
        """Look at the state once a second; in the core's line it costs nothing."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Turn what holds now into notices."""
        found = conditions(self.core.state, after_s=self.settings.after_s, journal_trouble=self.core.journal_trouble)
        notices = self._told.follow(found, self.core.clock())
        if not notices:
            return
        for notice in notices:
            log.info("notice", text=notice.text, mood=notice.mood)
            self.waiting.extend((address, notice) for address in self.addresses)
        self._write()
        self._news.set()

    async def post(self) -> None:
        """Send what waits, in order, until cancelled."""
        failures = 0
        while True:
            while not self.waiting:
                self._news.clear()
                await self._news.wait()
            address, notice = self.waiting[0]
            self.trouble = await self._send(address, notice)
            if self.trouble:
                METRICS.notices.labels(result="failed").inc()
                log.warning("notice.not_sent", why=self.trouble, waiting=len(self.waiting))
                self.waiting.rotate(-1)  # another receiver may be well
                failures += 1
                await asyncio.sleep(AGAIN_S[min((failures - 1) // max(1, len(self.addresses)), len(AGAIN_S) - 1)])
                continue
            failures = 0
            METRICS.notices.labels(result="sent").inc()
            with contextlib.suppress(ValueError):
                self.waiting.remove((address, notice))
            self._write()

    async def _send(self, address: str, notice: Notice) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                return await loop.run_in_executor(self._threads, self._sender, address, notice)
        except TimeoutError:  # the thread is left behind with its pool
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="notices")
            return f"{scheme(address)}: no answer within {SEND_WITHIN_S:g} s"
        except Exception as error:  # a receiver's plug-in must not end the night
            return f"{scheme(address)}: {type(error).__name__}"

    def _read(self) -> "Kept":
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=Kept)
        except (OSError, ValueError):
            return Kept()

    def _write(self) -> None:
        kept = Kept(told=sorted(self._told.told), waiting=[(mark(address), notice) for address, notice in self.waiting])
        with contextlib.suppress(OSError):  # at worst something is told twice after a restart
            self.file.write_bytes(msgspec.json.encode(kept))

    def close(self) -> None:
        """Give the thread back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
