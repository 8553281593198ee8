"""The daemon's own web server: never worth a night, so a port that is taken is told and tried again."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from starlette.applications import Starlette

from agent.desk import Desk
from agent.errors import ConfigError
from agent.keys import is_loopback
from agent.settings import Settings
from agent.web.access import Access
from agent.web.annotate import Annotate
from agent.web.app import create_app
from agent.web.live.expected import Expected
from agent.web.live.history import History
from agent.web.live.hub import Hub
from agent.web.live.lamps import Lamps
from agent.web.live.pictures import Pictures
from agent.web.live.routes import Live
from agent.web.overview import Overview
from agent.web.page import Page
from agent.web.precedence import Precedence
from agent.web.proofread import Proofread
from agent.web.proofread.session import SessionShelf
from agent.web.serve import address_of, listen, serve, split

log = structlog.get_logger("web")
TRY_AGAIN_S = 10.0


class WebPage:
    """The page of one daemon.

    Raises
    ------
    ConfigError
        If the page could be reached from other machines and there are no keys, or its address is none.
    """

    def __init__(self, settings: Settings, desk: Desk, lamps: Lamps, precedence: Precedence) -> None:
        self.settings = settings.web
        check(settings)
        self.history = History(desk.core)
        self.history.load()
        self.precedence = precedence
        self.hub = Hub(desk.core, desk, self.history, settings, lamps, precedence)
        self.pictures = Pictures(desk.folder)
        self.expected = Expected(settings)
        live = Live(desk, self.hub, self.pictures, self.expected)
        name = desk.core.state.name or settings.session.name
        self.overview = Overview(desk, settings.web.others, name)
        self.annotate = Annotate.below(desk.folder / "annotate")
        pages = [
            live.page(),
            Proofread(SessionShelf(desk.core, self.history, desk.folder)).page(),
            self.annotate.page(),
            self.overview.page(),
        ]  # in the order of the menu
        self.app = self._app(settings.keys, pages, name)
        self.trouble = ""
        self.on_listening: Callable[[str], object] = lambda address: address

    def _app(self, keys: Path | None, pages: list[Page], name: str) -> Starlette:
        hosts = [*self.settings.hosts, split(self.settings.address)[0]]
        title = f"{name} – Cryonaut"
        return create_app(pages, Access(keys), hosts=hosts, title=title, turn=self.precedence.turn)

    async def run(self) -> None:
        """Serve until cancelled; while the port is taken, say so and try again."""
        while True:
            try:
                made = listen(self.settings.address)
            except OSError as error:
                if not self.trouble:
                    self.trouble = f"web.address: {self.settings.address}: {error.strerror or error}"
                    log.warning("page.not_listening", error=self.trouble, again_s=TRY_AGAIN_S)
                await asyncio.sleep(TRY_AGAIN_S)
                continue
            self.trouble = ""
            self.on_listening(address_of(made))
            log.info("page.ready", address=f"{self.scheme}://{address_of(made)}/")
            await serve(self.app, made, certificate=self.settings.certificate, key=self.settings.private_key)
            return

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "https" if self.settings.certificate else "http"

    def close(self) -> None:
        """Give the page's threads back."""
        self.pictures.close()
        self.expected.close()
        self.overview.close()
        self.annotate.close()


def check(settings: Settings) -> None:
    """Refuse a page that strangers could reach, before anything is opened.

    Raises
    ------
    ConfigError
        With the key and the way out.
    """
    web = settings.web
    try:
        split(web.address)
    except ValueError as error:
        raise ConfigError(f"web.address: {web.address!r}: write host:port, such as 127.0.0.1:5874") from error
    if settings.keys is None and not is_loopback(web.address):
        raise ConfigError(
            f"web.address: {web.address} can be reached from other machines, and there are no keys: set `keys:` to a"
            " folder made by `cryonaut keys new`, or listen on 127.0.0.1"
        )
    if settings.keys is None and web.hosts:
        raise ConfigError(
            f"web.hosts: {list(web.hosts)} lets other machines in by a proxy, and there are no keys: set `keys:` to a"
            " folder made by `cryonaut keys new`"
        )
    if web.certificate is not None and web.private_key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(web.certificate, web.private_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"web.certificate: {web.certificate}, {web.private_key}: {error}") from error
