"""The program behind `agent.web.live.expected` works out what the policy expects: messages in, answers out.

It holds a copy of the session's squares, of which it is sent those that changed. When stdin ends, it ends.
"""

import os
import sys
import time
from typing import IO

import msgspec
from msgspec.structs import replace

from agent import session  # first: what decides is imported by it
from agent.policy.outlook import Outlook, outlook
from agent.session.state import Square, grid_of, is_hole
from agent.settings import Settings

SIZE_BYTES = 4  # before each message: its length, the low byte first


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin"):
    """The settings, as JSON."""

    settings: bytes


class Put(msgspec.Struct, frozen=True, kw_only=True, tag="put"):
    """A square that is new or other than before."""

    grid_id: str
    square: Square


class Drop(msgspec.Struct, frozen=True, kw_only=True, tag="drop"):
    """A square that is gone."""

    grid_id: str
    square_id: str


class Stand(msgspec.Struct, frozen=True, kw_only=True, tag="stand"):
    """The session without its squares; what was put before belongs to it."""

    state: session.State


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """What is expected of one area, or of everything on a grid."""

    area_id: str = ""
    grid_id: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The answer as JSON, and how long was worked on it."""

    body: bytes
    took_s: float


AnyMessage = Begin | Put | Drop | Stand | Ask
_decoder: "msgspec.msgpack.Decoder[AnyMessage]" = msgspec.msgpack.Decoder(AnyMessage)
_told: "msgspec.msgpack.Decoder[Told]" = msgspec.msgpack.Decoder(Told)
_encoder = msgspec.msgpack.Encoder()


def write(stream: IO[bytes], message: AnyMessage | Told) -> None:
    """Write one message; the caller flushes."""
    body = _encoder.encode(message)
    stream.write(len(body).to_bytes(SIZE_BYTES, "little"))
    stream.write(body)


def _read(stream: IO[bytes]) -> bytes:
    size = stream.read(SIZE_BYTES)
    body = stream.read(int.from_bytes(size, "little")) if len(size) == SIZE_BYTES else b""
    if not body:
        raise EOFError("the other end is gone")
    return body


def read_told(stream: IO[bytes]) -> Told:
    """The next answer.

    Raises
    ------
    EOFError
        If the program has ended.
    """
    return _told.decode(_read(stream))


class Teller:
    """Knows what the program was told, and what it has to be told to know another state."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, Square]] = {}  # by id: its grid, and the square as it was told last

    def tell(self, state: session.State) -> list[AnyMessage]:
        """The messages that lead to ``state``: records are never changed in place, so identity tells what is new."""
        there = {i: (grid.grid_id, square) for grid in state.grids.values() for i, square in grid.squares.items()}
        messages: list[AnyMessage] = []
        for square_id, (grid_id, square) in there.items():
            if (told := self._told.get(square_id)) is None or told[1] is not square:
                messages.append(Put(grid_id=grid_id, square=square))
        gone = self._told.keys() - there.keys()
        messages += [Drop(grid_id=self._told[square_id][0], square_id=square_id) for square_id in gone]
        self._told = there
        bare = {i: replace(grid, squares={}) for i, grid in state.grids.items()}
        return [*messages, Stand(state=replace(state, grids=bare, past={}, undo=()))]


class Expecting:
    """Answers by the session as it was told last."""

    def __init__(self) -> None:
        self._settings = Settings()
        self._squares: dict[str, dict[str, Square]] = {}
        self._state = session.State()
        self._outlook: Outlook | None = None

    def take(self, message: AnyMessage) -> Told | None:
        """Take one message in; an `Ask` is answered."""
        match message:
            case Begin(settings=settings):
                self._settings = Settings.model_validate_json(settings)
            case Put(grid_id=grid_id, square=square):
                self._squares.setdefault(grid_id, {})[square.area_id] = square
            case Drop(grid_id=grid_id, square_id=square_id):
                self._squares.get(grid_id, {}).pop(square_id, None)
            case Stand(state=state):
                grids = {i: replace(grid, squares=dict(self._squares.get(i, {}))) for i, grid in state.grids.items()}
                self._state, self._outlook = replace(state, grids=grids), None
            case Ask():
                begun = time.perf_counter()
                body = msgspec.json.encode(self._asked(message))
                return Told(body=body, took_s=time.perf_counter() - begun)
        return None

    def _asked(self, ask: Ask) -> object:
        if self._outlook is None:
            self._outlook = outlook(self._state, self._settings)
        found = self._outlook
        if ask.area_id:
            return (found.holes if is_hole(ask.area_id) else found.squares).get(ask.area_id)
        p_good = {i: h.p_good for i, h in found.holes.items() if grid_of(i) == ask.grid_id}
        return p_good | {i: s.p_good for i, s in found.squares.items() if grid_of(i) == ask.grid_id}


def main() -> None:
    """Answer until stdin ends."""
    if hasattr(os, "nice"):
        os.nice(10)  # whatever else runs here comes first
    expecting = Expecting()
    try:
        while True:
            told = expecting.take(_decoder.decode(_read(sys.stdin.buffer)))
            if told is not None:
                write(sys.stdout.buffer, told)
                sys.stdout.buffer.flush()
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
