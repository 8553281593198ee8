"""``cryonaut notices``: whether a message gets through."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(name="notices", help="Messages to people (mail, Slack, Teams, webhooks …): try them, send one.")


@app.command(name="test")
def try_out(*, config: Annotated[Path | None, Parameter(alias="-c")] = None, to: Path | None = None) -> None:
    """Send a test message to every address and say which got through; exit status 1 where one did not.

    Such as:

    - `cryonaut notices test --config krios.yaml`
    - `cryonaut notices test --to /etc/cryonaut/notices`

    Parameters
    ----------
    config
        Config whose `notices.to` names the file of addresses.
    to
        The file of addresses itself.
    """
    _send("this is a test: whoever reads this is told when the microscope stops", config, to)


@app.command
def send(text: str, *, config: Annotated[Path | None, Parameter(alias="-c")] = None, to: Path | None = None) -> None:
    """Send TEXT to every address, such as from a systemd unit when the daemon itself has died.

    Parameters
    ----------
    text
        What to say.
    config
        Config whose `notices.to` names the file of addresses.
    to
        The file of addresses itself.
    """
    _send(text, config, to)


def _send(text: str, config: Path | None, to: Path | None) -> None:
    from agent.cli.settings import load_settings
    from agent.errors import ConfigError
    from agent.notices import Notice
    from agent.notifier import addresses, scheme
    from agent.notifier import send as deliver

    file = to or load_settings(config, ()).notices.to
    if file is None:
        raise ConfigError("notices.to is not set: name a file with one address a line (docs/install.md)")
    notice = Notice(title=f"Cryonaut: {text}"[:120], text=text, mood="warning", utc=time.time())
    failed = 0
    for number, address in enumerate(addresses(file), 1):
        why, said = _with_reasons(partial(deliver, address, notice))
        failed += bool(why)
        print(f"{number} {scheme(address)}: {f'FAILED: {why}' if why else 'sent'}")
        for line in said.splitlines() if why else ():
            print(f"    {line}")
    sys.exit(1 if failed else 0)


def _with_reasons(deliver: Callable[[], str]) -> tuple[str, str]:
    """The outcome, and what apprise says about it; on the terminal of whoever may read the addresses anyway."""
    import logging

    try:
        import apprise
    except ImportError:
        return deliver(), ""
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
        return deliver(), said.getvalue()
