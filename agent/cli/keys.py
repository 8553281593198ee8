"""``cryonaut keys``: who may connect from other machines."""

from pathlib import Path
from typing import Literal

from cyclopts import App

Role = Literal["observer", "operator", "driver"]
FOLDER = Path("keys")

app = App(name="keys", help="Make, list and revoke the keys with which drivers and people connect.")


@app.command
def new(name: str, *, role: Role, folder: Path = FOLDER) -> None:
    """Make a key for one driver, operator or observer, and the daemon's own key the first time.

    Give `NAME.key_secret` and `server.key` to whoever it is for, over a safe way. People also get a token for the
    page; it is shown once, the folder keeps its hash only.

    Such as:

    - `cryonaut keys new anna --role operator --folder /etc/cryonaut/keys`
    - `cryonaut keys new krios --role driver`

    Parameters
    ----------
    name
        Name that the journal shows, letters, digits, `_`, `.` and `-`.
    role
        What the key allows.
    folder
        The daemon's key folder (`keys:` in its config).
    """
    from agent.keys import make

    secret = make(folder, name, role)
    print(f"secret key of {name} ({role}): {secret}")
    print(f"daemon's public key:           {folder / 'server.key'}")
    if role != "driver":
        token(name, folder=folder)


@app.command
def token(name: str, *, folder: Path = FOLDER) -> None:
    """Make a new page token for a person who lost theirs; the old one is void at once.

    Parameters
    ----------
    name
        A name that `cryonaut keys new` made.
    folder
        The daemon's key folder.
    """
    from agent.web.access import new_token

    print(f"token for the page:            {new_token(folder, name)}")


@app.command
def show(*, folder: Path = FOLDER) -> None:
    """List who may connect, with role, date and whether there is a page token; secrets are never shown.

    Parameters
    ----------
    folder
        The daemon's key folder.
    """
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from agent.errors import ConfigError
    from agent.keys import role_of

    if not (folder / "server.key").exists():
        raise ConfigError(f"{folder}: holds no server.key; `cryonaut keys new --help` makes one")
    table = Table("name", "role", "made", "page token")
    for file in sorted((folder / "clients").glob("*.key")):
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        has = (folder / "page" / file.stem).exists()
        table.add_row(file.stem, role_of(file), f"{made:%Y-%m-%d}", "yes" if has else "–")
    Console().print(table)


@app.command
def revoke(name: str, *, folder: Path = FOLDER) -> None:
    """Take a key and its page token away; a running daemon refuses both from now on.

    Parameters
    ----------
    name
        A name from `cryonaut keys show`.
    folder
        The daemon's key folder.
    """
    from agent.keys import revoke as take_away

    take_away(folder, name)
    print(f"{name} is revoked; what it sends from now on is refused")
