"""Who is asking: a name and a role from a token, a signed cookie, or from being on this machine.

Without a key folder everybody who reaches the page is `agent.keys.LOCAL`, and the daemon then listens on loopback only.
With one, each client has a token (``page/NAME`` holds its hash). Cookies are signed with that hash: they survive a
restart of the daemon, and are void as soon as the token is revoked.
"""

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Literal, NamedTuple

from agent.errors import ConfigError
from agent.keys import LOCAL, NAME, Peer, check_mode, role_of

Need = Literal["open", "observer", "operator"]  # what a route asks for
Way = Literal["local", "cookie", "bearer"]
TOKEN_BYTES = 32
COOKIE_DAYS = 30


class Caller(NamedTuple):
    """Who asks, and how that was shown; ``session`` ties the CSRF token to one sign-in."""

    peer: Peer
    way: Way
    session: str = ""

    def may(self, need: Need) -> bool:
        """Whether this caller's role is enough."""
        return need in ("open", "observer") or self.peer.role == "operator"


class Access:
    """Tokens of a key folder, read anew when they change; without a folder everybody is local."""

    links = False  # whether a token may stand in a link: only where it dies with the program

    def __init__(self, keys: Path | None) -> None:
        self.folder = keys
        self._secret = secrets.token_bytes(32)
        public = keys / "server.key" if keys is not None else None
        seed = public.read_bytes() if public is not None and public.exists() else b""
        self.cookie_name = f"cryonaut-{hashlib.sha256(seed).hexdigest()[:8]}"  # daemons of one host share its cookies

    def by_token(self, token: str) -> Caller | None:
        """The caller that this token belongs to: ``NAME:SECRET``."""
        name, _, _ = token.partition(":")
        known = self._hash_of(name)
        if known is None or not hmac.compare_digest(known, hash_of(token)):
            return None
        peer = self._peer(name)
        return Caller(peer, "bearer") if peer else None

    def by_cookie(self, cookie: str) -> Caller | None:
        """The caller whose sign-in this cookie is."""
        name, _, rest = cookie.partition("~")
        until, _, signature = rest.partition("~")
        known = self._hash_of(name)
        if known is None or not until.isdecimal() or int(until) < time.time():
            return None
        if not hmac.compare_digest(signature.encode(), _sign(known, f"{name}~{until}").encode()):
            return None
        peer = self._peer(name)
        return Caller(peer, "cookie", cookie) if peer else None

    def cookie_for(self, caller: Caller) -> str:
        """A cookie that signs this caller in for `COOKIE_DAYS`."""
        body = f"{caller.peer.name}~{int(time.time()) + COOKIE_DAYS * 86_400}"
        return f"{body}~{_sign(self._hash_of(caller.peer.name) or '', body)}"

    def who(self, authorization: str, cookie: str) -> Caller | None:
        """The caller behind a request's headers; None for a stranger."""
        if self.folder is None:
            return Caller(LOCAL, "local")
        if authorization[:7].lower() == "bearer ":
            return self.by_token(authorization[7:].strip())
        return self.by_cookie(cookie) if cookie else None

    def csrf(self, caller: Caller) -> str:
        """What a state-changing request of this caller has to carry; a foreign page cannot read it."""
        return hmac.new(self._secret, f"csrf {caller.peer.name} {caller.session}".encode(), "sha256").hexdigest()

    def _hash_of(self, name: str) -> str | None:
        if self.folder is None or not NAME.match(name):
            return None
        file = self.folder / "page" / name
        try:
            check_mode(file)
            return file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def _peer(self, name: str) -> Peer | None:
        file = (self.folder or Path()) / "clients" / f"{name}.key"
        try:
            role = role_of(file)
        except (OSError, ConfigError):
            return None
        return Peer(name, role) if role in ("observer", "operator") else None


def new_token(folder: Path, name: str) -> str:
    """A fresh token for the client ``name``; the folder keeps its hash only, and a token from before is void.

    Raises
    ------
    ConfigError
        If there is no such client.
    """
    if not NAME.match(name) or not (folder / "clients" / f"{name}.key").exists():
        raise ConfigError(f"{folder}: there is no client {name!r}; `cryonaut keys new {name} --role …` makes one")
    token = f"{name}:{secrets.token_urlsafe(TOKEN_BYTES)}"
    page = folder / "page"
    page.mkdir(mode=0o700, exist_ok=True)
    file = page / name
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(hash_of(token) + "\n", encoding="ascii")
    return token


def hash_of(token: str) -> str:
    """What is kept of a token; 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _sign(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
