"""Access by a link: one secret, made for one run of a command, known to whoever started it."""

import hmac
import secrets

from agent.keys import LOCAL
from agent.web.access import Access, Caller


class LinkAccess(Access):
    """Everybody with the link of this run is the person at this machine; nobody else gets in."""

    links = True

    def __init__(self) -> None:
        super().__init__(None)
        self.token = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(24)
        self.cookie_name = f"cryonaut-proofread-{secrets.token_hex(4)}"

    def by_token(self, token: str) -> Caller | None:
        """The person with the link."""
        return Caller(LOCAL, "bearer") if hmac.compare_digest(token.encode(), self.token.encode()) else None

    def by_cookie(self, cookie: str) -> Caller | None:
        """The browser that the link was opened in."""
        known = hmac.compare_digest(cookie.encode(), self._cookie.encode())
        return Caller(LOCAL, "cookie", cookie) if known else None

    def cookie_for(self, caller: Caller) -> str:
        """The cookie of this run."""
        return self._cookie

    def who(self, authorization: str, cookie: str) -> Caller | None:
        """The caller behind a request's headers; None for a stranger."""
        if authorization[:7].lower() == "bearer ":
            return self.by_token(authorization[7:].strip())
        return self.by_cookie(cookie) if cookie else None
