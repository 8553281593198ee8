"""The quick client behind the scripts: asks warm finders, starts them where there are none, or works alone.

``python -I client.py squares|holes IMAGE OUT [--shrunk] [--squares MODEL] [--holes MODEL] [--folder DIR]``

Nothing but the standard library and ZeroMQ is imported before it has to work alone. OUT gets the whole JSON list in its
first line, or is not written at all: then a line on stderr and the exit status say why.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SILENT_S = 30.0  # the finders say every few seconds that they are at it
START_S = 120.0
LONGEST_PATH = 100  # a socket's path has to be shorter than 108 bytes


class NoFinderError(Exception):
    """Nobody answers; the client works alone."""


class FindError(Exception):
    """The image cannot be used."""


def default_folder() -> Path:
    """Where clients and finders of one user meet."""
    return Path(f"/tmp/cryonaut-{os.getuid()}")  # noqa: S108 - made for this user alone, and checked to be so


def meeting_place(folder: Path, squares: str, holes: str) -> Path:
    """Path stem of socket, locks and log: another installation or other models meet elsewhere.

    Raises
    ------
    NoFinderError
        If the folder is not this user's alone.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise NoFinderError(f"{folder}: {error.strerror}") from error
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or not folder.is_dir() or folder.is_symlink():
        raise NoFinderError(f"{folder}: is not this user's alone (mode 700); remove it, or name another with --folder")
    mark = hashlib.sha256("\n".join((str(ROOT), sys.prefix, squares, holes)).encode()).hexdigest()[:12]
    stem = folder / f"finder-{mark}"
    if len(os.fsencode(stem)) > LONGEST_PATH:
        raise NoFinderError(f"{folder}: too long a path for a socket; name another with --folder")
    return stem


def is_alive(stem: Path) -> bool:
    """Whether finders serve here: they hold a lock that dies with them."""
    with stem.with_suffix(".alive").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def only_one(stem: Path) -> Iterator[None]:
    """One client at a time starts finders; the others wait and then find them."""
    with stem.with_suffix(".start").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(stem: Path, squares: str, holes: str, idle_s: float) -> None:
    """Start finders as a program of their own and wait until they serve.

    Raises
    ------
    NoFinderError
        If they do not; their log says why.
    """
    with only_one(stem):
        if is_alive(stem):
            return
        log = stem.with_suffix(".log")
        call = [sys.executable, "-I", str(Path(__file__).with_name("finders.py")), str(stem)]
        call += ["--squares", squares, "--holes", holes, "--idle", f"{idle_s:g}"]
        with log.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - our own program
                call, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/"
            )
        deadline = time.monotonic() + START_S
        while not is_alive(stem):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoFinderError(f"finders did not start; {log} says why")
            time.sleep(0.02)


def ask(stem: Path, request: dict[str, object]) -> str:
    """The finders' answer: one line of JSON.

    Raises
    ------
    FindError
        If they cannot use the image.
    NoFinderError
        If they end or fall silent.
    """
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        socket.linger = 0
        socket.reconnect_ivl = 10  # milliseconds: finders just started may not listen yet
        socket.connect(f"ipc://{stem.with_suffix('.sock')}")
        socket.send(json.dumps(request).encode())
        heard = time.monotonic()
        while True:
            if socket.poll(250):
                answer = json.loads(socket.recv())
                heard = time.monotonic()
                if "text" in answer:
                    return str(answer["text"])
                if "error" in answer:
                    raise FindError(answer["error"])
            elif not is_alive(stem):
                raise NoFinderError("the finders ended")
            elif time.monotonic() - heard > SILENT_S:
                raise NoFinderError(f"the finders were silent for {SILENT_S:g} s")
    finally:
        socket.close(0)
        context.term()


def find_alone(request: dict[str, object], squares: str, holes: str) -> str:
    """The answer without finders: slower, as everything is imported first."""
    sys.path.insert(0, str(ROOT))
    from drivers.leginon.command.find import Finders, UnusableError

    try:
        return Finders(squares, holes).find(request)
    except UnusableError as error:
        raise FindError(str(error)) from error


def write(text: str, out: Path) -> None:
    """Put the answer at ``out`` in one step: a reader sees all of it or nothing."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(out)


def answer_for(options: argparse.Namespace) -> str:
    """The answer, by the quickest way there is."""
    request = {"what": options.what, "image": str(options.image.absolute()), "shrunk": options.shrunk}
    if not options.alone:
        try:
            stem = meeting_place(options.folder, options.squares, options.holes)
            for _ in range(2):
                if not is_alive(stem):
                    start(stem, options.squares, options.holes, options.idle)
                try:
                    return ask(stem, request)
                except NoFinderError as error:
                    why: object = error
            raise NoFinderError(why)
        except (NoFinderError, OSError, ImportError) as error:
            say(f"works alone: {error}")
    return find_alone(request, options.squares, options.holes)


def say(text: str) -> None:
    """One line for a person."""
    sys.stderr.write(f"cryonaut: {text}\n")


def main(arguments: list[str] | None = None) -> int:
    """Find, and write what was found; the exit status says whether that was possible."""
    parser = argparse.ArgumentParser(
        prog="client.py", description="Squares or holes of one image, as Leginon reads them."
    )
    parser.add_argument("what", choices=("squares", "holes"))
    parser.add_argument("image", type=Path, help="MRC, TIFF, PNG or JPEG")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument(
        "--shrunk", action="store_true", help="holes on the image as Leginon bins it (above 1440 pixels)"
    )
    parser.add_argument("--squares", default="squares-mixture", help="model for squares")
    parser.add_argument("--holes", default="holes-template", help="model for holes")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where clients and warm finders meet")
    parser.add_argument("--idle", type=float, default=1800.0, help="seconds without work after which finders end")
    parser.add_argument("--alone", action="store_true", help="do not use warm finders")
    options = parser.parse_args(arguments)
    try:
        write(answer_for(options), options.out)
    except FindError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"{options.out}: cannot be written: {error.strerror}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
