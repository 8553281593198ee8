"""``cryonaut keys``: who may connect from other machines."""

from pathlib import Path
from typing import Literal

from cyclopts import App

Role = Literal["observer", "operator", "driver"]

app = App(name="keys", help="Make the keys with which drivers and operators connect from other machines.")


@app.command
def new(name: str, *, role: Role, folder: Path = Path("keys")) -> None:
    """Make a key for one driver, operator or observer, and the daemon's own key the first time.

    Give `NAME.key_secret` and `server.key` to whoever it is for, over a safe way. To revoke it, remove
    `clients/NAME.key` from the folder and start the daemon again.

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
