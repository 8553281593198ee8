"""Who may connect: CURVE keys with a name and a role each, and what is allowed without any.

A key folder holds ``server.key_secret`` (daemon only) and ``server.key``, and ``clients/NAME.key`` plus
``clients/NAME.key_secret`` for each client; the role stands in the metadata of the public file.
"""

import ipaddress
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlparse

import zmq
import zmq.asyncio
import zmq.auth
from zmq.auth.asyncio import AsyncioAuthenticator

from agent.errors import ConfigError

Role = Literal["observer", "operator", "driver"]
ROLES: tuple[Role, ...] = ("observer", "operator", "driver")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z")


class Peer(NamedTuple):
    """Who is at the other end."""

    name: str
    role: Role


LOCAL = Peer("local", "operator")  # on loopback without keys: whoever has an account on this machine


def is_loopback(endpoint: str) -> bool:
    """Whether only programs of this machine can reach the endpoint."""
    if endpoint.startswith(("ipc://", "inproc://")):
        return True
    host = urlparse(endpoint if "://" in endpoint else f"tcp://{endpoint}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Keyring:
    """The keys of a folder, or none at all (``folder`` None)."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.peers: dict[str, Peer] = {}
        self.server_public = self.server_secret = b""
        if folder is None:
            return
        secret_file = folder / "server.key_secret"
        if not secret_file.exists():
            raise ConfigError(f"keys: {folder}: holds no server.key_secret; `cryonaut keys new --help` makes one")
        check_mode(secret_file)
        self.server_public, secret = zmq.auth.load_certificate(secret_file)
        self.server_secret = secret or b""
        self._seen = 0
        self.refresh()

    def refresh(self) -> None:
        """Read the clients anew where one was added or revoked since the last look.

        Raises
        ------
        ConfigError
            If the file of a client names no role.
        """
        clients = (self.folder or Path()) / "clients"
        changed = clients.stat().st_mtime_ns if self.folder is not None and clients.is_dir() else 0
        if changed == self._seen:
            return
        found = {}
        for file in sorted(clients.glob("*.key")):
            public, _ = zmq.auth.load_certificate(file)
            found[public.decode()] = Peer(file.stem, role_of(file))
        self._seen = changed
        self.peers.clear()  # the same dictionary: the authenticator looks into it
        self.peers.update(found)

    def protect(self, socket: "zmq.asyncio.Socket", endpoint: str) -> None:
        """Make a listening socket take known keys only; without keys only loopback is allowed.

        Raises
        ------
        ConfigError
            If the endpoint can be reached from other machines and there are no keys.
        """
        if self.folder is None:
            if not is_loopback(endpoint):
                raise ConfigError(
                    f"endpoint {endpoint} can be reached from other machines, and there are no keys: set `keys:` to a"
                    " folder made by `cryonaut keys new`, or listen on 127.0.0.1"
                )
            return
        socket.curve_server = True
        socket.curve_publickey = self.server_public
        socket.curve_secretkey = self.server_secret

    def guard(self, context: "zmq.asyncio.Context") -> AsyncioAuthenticator | None:
        """The authenticator that refuses unknown keys; to be started and stopped by the daemon."""
        if self.folder is None:
            return None
        guard = AsyncioAuthenticator(context)
        known, refresh = self.peers, self.refresh

        class Known:
            """Answers the authenticator's question by the list of known keys."""

            def callback(self, _domain: str, key: bytes) -> bool:
                with suppress(ConfigError, OSError, ValueError):
                    refresh()
                return zmq.utils.z85.encode(key).decode() in known if len(key) == 32 else key.decode() in known

        guard.configure_curve_callback(domain="*", credentials_provider=Known())
        return guard

    def who(self, frame: zmq.Frame) -> Peer | None:
        """The peer that sent this frame; None for a key that is not known (any more)."""
        if self.folder is None:
            return LOCAL
        with suppress(ConfigError, OSError, ValueError):  # a key half written: the list from before holds
            self.refresh()
        try:
            return self.peers.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None


def check_mode(file: Path) -> None:
    """Refuse a secret that others on this machine can read.

    Raises
    ------
    ConfigError
        With the command that mends it.
    """
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{file}: mode {mode:04o} lets others read a secret key; `chmod 600 {file}`")


def role_of(file: Path) -> Role:
    """The role that a public key file gives.

    Raises
    ------
    ConfigError
        If the file names none, or one that does not exist.
    """
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, value = line.strip().partition("=")
        if name.strip() == "role":
            role = value.strip().strip('"')
            for known in ROLES:
                if role == known:
                    return known
            raise ConfigError(f"{file}: role {role!r}; roles are {', '.join(ROLES)}")
    raise ConfigError(f"{file}: names no role; make it with `cryonaut keys new`")


def make(folder: Path, name: str, role: Role) -> Path:
    """Make a client key (and the daemon's own, the first time); returns the client's secret file.

    Raises
    ------
    ConfigError
        If the name is taken, or no name.
    """
    if not NAME.match(name):
        raise ConfigError(f"{name!r} is no name for a key: letters, digits, `_`, `.` and `-`, at most 64")
    clients = folder / "clients"
    clients.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / "server.key_secret").exists():
        zmq.auth.create_certificates(folder, "server")
        (folder / "server.key_secret").chmod(0o600)
    if (clients / f"{name}.key").exists():
        raise ConfigError(f"{clients / name}.key exists; take another name, or `cryonaut keys revoke {name}` first")
    public, secret = (Path(file) for file in zmq.auth.create_certificates(clients, name))
    secret.chmod(0o600)
    # written by hand: pyzmq puts the metadata into the secret file only, which the daemon never sees
    text = public.read_text(encoding="utf-8")
    public.write_text(text.replace("metadata\n", f'metadata\n    role = "{role}"\n', 1), encoding="utf-8")
    return secret


def revoke(folder: Path, name: str) -> None:
    """Take a client's key and page token away; both are refused from now on, also by a daemon that runs.

    Raises
    ------
    ConfigError
        If there is no such client.
    """
    files = [folder / "clients" / f"{name}.key", folder / "clients" / f"{name}.key_secret", folder / "page" / name]
    if not NAME.match(name) or not files[0].exists():
        raise ConfigError(f"{folder}: there is no client {name!r}; `cryonaut keys show` lists them")
    for file in files:
        file.unlink(missing_ok=True)


def arm_client(socket: "zmq.Socket[Any]", secret_file: Path | None, server_key: Path | None) -> None:
    """Give a connecting socket its key and the key of the daemon it means to reach."""
    if secret_file is None:
        return
    check_mode(secret_file)
    public, secret = zmq.auth.load_certificate(secret_file)
    server = server_key or secret_file.parent.parent / "server.key"
    if not server.exists():
        raise ConfigError(f"{server}: the daemon's public key is needed beside {secret_file}; copy it from there")
    socket.curve_publickey = public
    socket.curve_secretkey = secret or b""
    socket.curve_serverkey, _ = zmq.auth.load_certificate(server)
