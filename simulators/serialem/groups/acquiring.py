"""Acquire at Items: asked for by a script, started when it ends, and nobody else gets in while it runs."""

from __future__ import annotations

from simulators.serialem.commands import Call, ScriptError, UserStop, Values, command
from simulators.serialem.groups.multishot import holes_of, record_at
from simulators.serialem.groups.stage import move
from simulators.serialem.program import SerialEM

MULTIPLE_RECORDS = 4


@command("NavAcqAtEndUseParams", "RunScriptAfterNavAcquire")
def prepare(sem: SerialEM, call: Call) -> Values:
    """Choices for the run that change nothing here; they are kept in the log only."""
    sem.say(f"{call.info.name} {' '.join(argument.text for argument in call.arguments)}")
    return None


@command("SetNavAcqAtEndParams")
def set_nav_acq_at_end_params(sem: SerialEM, call: Call) -> Values:
    """Pairs of a name and a number; here "prim" counts: 4 is multiple Records, anything else one Record."""
    for place in range(1, len(call.arguments), 2):
        if call.text(place).lower() == "prim":
            sem.navigator.primary = call.integer(place + 1)
    return prepare(sem, call)


@command("StartNavAcquireAtEnd")
def start_at_end(sem: SerialEM, call: Call) -> Values:
    """Acquire at the marked items when this script ends."""
    sem.navigator.need_open()
    if not any(item.acquire for item in sem.navigator.items):
        raise ScriptError("There are no Navigator items marked for acquiring")
    sem.navigator.acquire_at_end = True
    return None


@command("EndAcquireAtItems")
def end_acquire(sem: SerialEM, call: Call) -> Values:
    """End a run that is under way: only a script of that run can say so."""
    raise ScriptError("The Navigator is not acquiring at items")


def acquire(sem: SerialEM) -> None:
    """The run itself: go to each marked item, take its Records, save them where a file is open, clear the mark."""
    nav = sem.navigator
    nav.acquiring = True
    try:
        for item in list(nav.items):
            if not item.acquire:
                continue
            sem.check_stop()
            move(sem, item.x_um, item.y_um)
            holes = holes_of(sem, item) if nav.primary == MULTIPLE_RECORDS else [(0.0, 0.0)]
            record_at(sem, holes, [(0.0, 0.0)], save=True)
            item.acquire = False
    except (ScriptError, UserStop) as error:
        sem.say(f"Acquire at Items ended early: {error}")
    finally:
        nav.acquiring = False
