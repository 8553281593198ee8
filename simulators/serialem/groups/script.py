"""Scripts themselves: variables, errors, properties, version, the log, waiting, leaving."""

from __future__ import annotations

from simulators.serialem.commands import Call, ScriptError, ScriptExit, Values, command
from simulators.serialem.program import BUILD_DATES, SerialEM


@command("Echo")
def echo(sem: SerialEM, call: Call) -> Values:
    """A line in the log."""
    sem.say(call.text(1))
    return None


@command("Delay")
def delay(sem: SerialEM, call: Call) -> Values:
    """Wait: n and "s", "ms" or "min"; without a unit, numbers of 60 and more are ms, as in SerialEM."""
    amount, unit = call.number(1), call.text(2).lower()
    factor = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "m": 60.0, "min": 60.0}.get(unit)
    if factor is None:
        factor = 1e-3 if amount >= 60 else 1.0
    sem.wait(max(0.0, amount * factor))
    return None


@command("Exit")
def leave(sem: SerialEM, call: Call) -> Values:
    """End the script."""
    if call.has(2):
        sem.say(call.text(2))
    raise ScriptExit(with_code=call.integer(1) != 0)


@command("Return")
def return_from_top(sem: SerialEM, call: Call) -> Values:
    """End the script: there is nothing to return to."""
    raise ScriptExit(with_code=False)


@command("IsVersionAtLeast")
def is_version_at_least(sem: SerialEM, call: Call) -> Values:
    """1 when this is that version or later, and that build date or later."""
    parts = [*map(int, sem.version.split(".")), 0, 0]
    ours = 10000 * parts[0] + 100 * parts[1] + parts[2]
    if not call.text(1).strip().isdigit():
        raise ScriptError(f"IsVersionAtLeast: version {call.text(1)!r} is not a number such as 40200")
    date = BUILD_DATES.get(f"{parts[0]}.{parts[1]}", 99999999)
    return int(ours >= int(call.text(1)) and (not call.has(2) or date >= call.integer(2)))


@command("ReportNumExeFuncs")
def report_num_exe_funcs(sem: SerialEM, call: Call) -> Values:
    """How many command codes there are."""
    return sem.entries


@command("NoMessageBoxOnError")
def no_message_box_on_error(sem: SerialEM, call: Call) -> Values:
    """Errors go to the client instead of into a box."""
    sem.script.boxes_off = call.integer(1, 1) != 0
    return None


@command("ErrorsToLog")
def errors_to_log(sem: SerialEM, call: Call) -> Values:
    """Errors go to the log; here they do anyway."""
    return None


@command("SuppressReports")
def suppress_reports(sem: SerialEM, call: Call) -> Values:
    """Reports no longer go to the log."""
    sem.script.suppress_reports = call.integer(1, 1) != 0
    return None


@command("StartTry")
def start_try(sem: SerialEM, call: Call) -> Values:
    """Errors until EndTry go to the client."""
    sem.script.try_depth += 1
    return None


@command("EndTry")
def end_try(sem: SerialEM, call: Call) -> Values:
    """Leave one StartTry."""
    if not sem.script.try_depth:
        raise ScriptError("EndTry without a StartTry before it")
    sem.script.try_depth -= 1
    return None


def _stored(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


@command("SetVariable")
def set_variable(sem: SerialEM, call: Call) -> Values:
    """A variable of this script."""
    sem.script.variables[call.text(1).upper()] = _stored(call.text(2))
    return None


@command("SetPersistentVar")
def set_persistent_var(sem: SerialEM, call: Call) -> Values:
    """A variable that outlives the script."""
    sem.persistent[call.text(1).upper()] = _stored(call.text(2))
    return None


@command("GetVariable")
def get_variable(sem: SerialEM, call: Call) -> Values:
    """A variable's value: a number when it is one."""
    name = call.text(1).upper()
    for variables in (sem.script.variables, sem.persistent):
        if name in variables:
            return variables[name]
    raise ScriptError(f"The variable {call.text(1)} is not defined")


@command("IsVariableDefined")
def is_variable_defined(sem: SerialEM, call: Call) -> Values:
    """1 when there is such a variable, of this script or persistent."""
    name = call.text(1).upper()
    return int(name in sem.script.variables or name in sem.persistent)


@command("ClearPersistentVars")
def clear_persistent_vars(sem: SerialEM, call: Call) -> Values:
    """Forget what outlives scripts."""
    sem.persistent.clear()
    return None


@command("ClearNonPersistentVars")
def clear_non_persistent_vars(sem: SerialEM, call: Call) -> Values:
    """Forget the script's own variables."""
    sem.script.variables.clear()
    return None


@command("ReportProperty")
def report_property(sem: SerialEM, call: Call) -> Values:
    """A property of the site."""
    found = {name.lower(): value for name, value in sem.properties.items()}.get(call.text(1).lower())
    if found is None:
        raise ScriptError(f"{call.text(1)} is not a recognized property, or not one with a number")
    return found


@command("SetProperty")
def set_property(sem: SerialEM, call: Call) -> Values:
    """Change a property until SerialEM is closed."""
    for name in sem.properties:
        if name.lower() == call.text(1).lower():
            sem.properties[name] = call.number(2)
            return None
    raise ScriptError(f"{call.text(1)} is not a recognized property, or cannot be set from a script")


@command("ReportUserSetting")
def report_user_setting(sem: SerialEM, call: Call) -> Values:
    """A user setting."""
    if call.text(1) not in sem.user_settings:
        raise ScriptError(f"{call.text(1)} is not a recognized setting, or not one with a number")
    return sem.user_settings[call.text(1)]


@command("SetUserSetting")
def set_user_setting(sem: SerialEM, call: Call) -> Values:
    """Change a user setting, until the script ends unless it is to be kept."""
    name = call.text(1)
    if name not in sem.user_settings:
        raise ScriptError(f"{name} is not a recognized setting, or cannot be set from a script")
    before = sem.user_settings[name]
    if not call.integer(3) and f"setting {name}" not in sem.script.restore:
        sem.script.restore[f"setting {name}"] = lambda: sem.user_settings.update({name: before})
    sem.user_settings[name] = call.number(2)
    return None


@command("ReportClock")
def report_clock(sem: SerialEM, call: Call) -> Values:
    """Simulated seconds since ResetClock."""
    return sem.scope.clock.elapsed_s - sem.clock_zero_s


@command("ResetClock")
def reset_clock(sem: SerialEM, call: Call) -> Values:
    """Start ReportClock anew."""
    sem.clock_zero_s = sem.scope.clock.elapsed_s
    return None


@command("SaveLog", "SaveLogOpenNew")
def save_log(sem: SerialEM, call: Call) -> Values:
    """Write the log to a file; SaveLogOpenNew also empties it."""
    new = call.info.name == "SaveLogOpenNew"
    path = sem.path(call.text(1 if new else 2, "SerialEM.log"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sem.journal) + "\n", "utf-8")
    if new:
        sem.journal.clear()
    return None


@command("SendEmail")
def send_email(sem: SerialEM, call: Call) -> Values:
    """Mail that stays here: in the log."""
    sem.say(f"E-mail: {call.text(1)}")
    return None


@command("Pause", "OKBox", "YesNoBox")
def ask_the_operator(sem: SerialEM, call: Call) -> Values:
    """A box on SerialEM's screen: nobody is there, so it stays until STOP is pressed."""
    sem.control.wait_for_stop()
    sem.check_stop()
    return None
