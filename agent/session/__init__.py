"""The session core: pure, event-sourced, the same for a live night, a crash and a replay.

`step` takes a state and an input and gives the events; `fold` takes events and gives the state. No socket, clock,
thread, file or random number is inside: time comes in as a number.
"""

from collections.abc import Callable
from typing import Any

from agent.session import inputs as inp
from agent.session import react
from agent.session.apply import EMPTY, advance, fold
from agent.session.events import AnyEvent
from agent.session.operator import NotPossibleError, controlled
from agent.session.plan import plan
from agent.session.state import State
from agent.session.turn import Turn
from agent.settings import Settings

__all__ = ["EMPTY", "NotPossibleError", "State", "advance", "fold", "step"]

_REACTIONS: dict[type, Callable[[Turn, Any], None]] = {
    inp.Started: react.started,
    inp.SaidHello: react.said_hello,
    inp.Left: react.left,
    inp.TakenOver: react.taken_over,
    inp.FrameCame: react.frame_came,
    inp.Analysed: react.analysed,
    inp.AnalysisFailed: react.analysis_failed,
    inp.MeasurementCame: react.measurement_came,
    inp.PastCame: react.past_came,
    inp.OrderAsked: react.order_asked,
    inp.ResultCame: lambda turn, what: react.result_came(turn, what.result),
    inp.Reported: react.reported,
    inp.Held: react.held,
    inp.Overdue: react.overdue,
    inp.Tick: react.tick,
}


def step(state: State, what: inp.AnyInput, settings: Settings, utc: float) -> tuple[list[AnyEvent], State, str]:
    """What ``what``, come in at ``utc``, leads to.

    Returns
    -------
    events, state, answer
        The events to be journalled together, the state after them, and the answer to an operator's request.

    Raises
    ------
    NotPossibleError
        If the input is an operator's request that cannot be carried out; nothing has happened then.
    """
    turn = Turn(state, settings, utc)
    answer = ""
    if isinstance(what, inp.Controlled):
        answer = controlled(turn, what)
    else:
        _REACTIONS[type(what)](turn, what)
    plan(turn)
    return turn.events, turn.state, answer
