"""What keeps a session safe: valves, screen, dewars, pumps, gauges, and the autoloader."""

from __future__ import annotations

from simulators.serialem.autoloader import SLOTS
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.program import SerialEM


@command("ReportColumnOrGunValve")
def report_column_or_gun_valve(sem: SerialEM, call: Call) -> Values:
    """1 open, 0 closed."""
    return int(sem.scope.valves_open)


@command("SetColumnOrGunValve")
def set_column_or_gun_valve(sem: SerialEM, call: Call) -> Values:
    """Open (1) or close (0) the column valves."""
    sem.wait(3.0)
    sem.scope.valves_open = call.integer(1) != 0
    return None


@command("ScreenDown", "ScreenUp")
def move_screen(sem: SerialEM, call: Call) -> Values:
    """Move the main screen."""
    sem.surroundings.screen_down = call.info.name == "ScreenDown"
    sem.wait(1.0)
    return None


@command("ReportScreen")
def report_screen(sem: SerialEM, call: Call) -> Values:
    """1 is down."""
    return int(sem.surroundings.screen_down)


@command("ReportScreenCurrent")
def report_screen_current(sem: SerialEM, call: Call) -> Values:
    """Current on the screen in nA; 0 where no beam arrives."""
    around, scope = sem.surroundings, sem.scope
    lit = around.screen_down and scope.valves_open and not scope.beam_blanked
    return around.screen_current_na * scope.beam_current if lit else 0.0


@command("ReportFEGBeamCurrent")
def report_feg_beam_current(sem: SerialEM, call: Call) -> Values:
    """Emission in nA."""
    return sem.surroundings.feg_current_na * sem.scope.beam_current


@command("AreDewarsFilling")
def are_dewars_filling(sem: SerialEM, call: Call) -> Values:
    """1 while they fill."""
    return int(sem.surroundings.dewars_filling)


@command("DewarsRemainingTime")
def dewars_remaining_time(sem: SerialEM, call: Call) -> Values:
    """Seconds to the next filling; -1 when none is planned."""
    return sem.surroundings.dewars_remaining_s


@command("RefrigerantLevel")
def refrigerant_level(sem: SerialEM, call: Call) -> Values:
    """Level of a dewar in %."""
    levels = sem.surroundings.dewar_levels
    if call.integer(1) not in levels:
        raise ScriptError(f"There is no dewar {call.integer(1)}; there are {list(levels)}")
    return levels[call.integer(1)]


@command("ManageDewarsAndPumps")
def manage_dewars_and_pumps(sem: SerialEM, call: Call) -> Values:
    """Wait until the dewars are full and the pump has stopped."""
    around = sem.surroundings
    if around.dewars_filling or around.pvp_running:
        sem.wait(300.0)
        around.dewars_filling = around.pvp_running = False
    return None


OPERATIONS = ("BU", "RE", "IN", "LO", "$=", "DA", "UN", "CO", "RB", "RT", "RS", "PA", "AV", "FF", "HW", "FT")


@command("LongOperation")
def long_operation(sem: SerialEM, call: Call) -> Values:
    """Pairs of a name and hours: 0 is now, more is "if older", less than -1 only asks; 0, and 0."""
    times = sem.surroundings.since_operation_s
    for place in range(1, len(call.arguments), 2):
        name, hours = call.text(place)[:2].upper(), call.number(place + 1)
        if name not in OPERATIONS:
            raise ScriptError(f"{call.text(place)} is not a long operation; there are {', '.join(OPERATIONS)}")
        age_h = (sem.scope.clock.elapsed_s - times.get(name, float("-inf"))) / 3600
        if hours < -1 or (hours > 0 and age_h < hours):
            continue
        sem.wait(120.0)
        if name in ("RS", "RT", "RB", "RE"):
            sem.surroundings.dewars_filling = False
            sem.surroundings.dewar_levels = dict.fromkeys(sem.surroundings.dewar_levels, 100.0)
        times[name] = sem.scope.clock.elapsed_s
    return 0, 0


@command("IsPVPRunning")
def is_pvp_running(sem: SerialEM, call: Call) -> Values:
    """1 while the prevacuum pump runs."""
    return int(sem.surroundings.pvp_running)


@command("ReportVacuumGauge")
def report_vacuum_gauge(sem: SerialEM, call: Call) -> Values:
    """Status (4 is valid), pressure in Pa."""
    gauges = sem.surroundings.gauges
    if call.text(1) not in gauges:
        raise ScriptError(f"There is no gauge {call.text(1)}; there are {', '.join(gauges)}")
    return gauges[call.text(1)]


# -------------------------------------------------------------------------------------------------- camera upkeep


@command("UpdateHWDarkRef")
def update_hw_dark_ref(sem: SerialEM, call: Call) -> Values:
    """New dark reference when the last is older than so many hours."""
    times, now = sem.surroundings.since_operation_s, sem.scope.clock.elapsed_s
    if (now - times.get("HW", float("-inf"))) / 3600 >= call.number(1):
        sem.wait(60.0)
        times["HW"] = sem.scope.clock.elapsed_s
    return None


@command("CheckForBadStripe")
def check_for_bad_stripe(sem: SerialEM, call: Call) -> Values:
    """No transitions: this camera has no stripes."""
    sem.buffers.get(call.text(1, "A"))
    return 0, 0


# -------------------------------------------------------------------------------------------------- autoloader


@command("ReportSlotStatus")
def report_slot_status(sem: SerialEM, call: Call) -> Values:
    """1 occupied, 0 empty, -1 no such slot; then the name of the grid there."""
    loader, slot = sem.autoloader, call.integer(1)
    status = loader.status(slot)
    return (status, loader.slots[slot]) if status == 1 else status


@command("ReportLoadedSlot")
def report_loaded_slot(sem: SerialEM, call: Call) -> Values:
    """Slot of the grid on the stage; 0 when there is none."""
    return sem.autoloader.loaded


@command("LoadCartridge")
def load_cartridge(sem: SerialEM, call: Call) -> Values:
    """Bring the grid of a slot onto the stage, the one there back first; takes minutes."""
    loader, slot = sem.autoloader, call.integer(1)
    if not 1 <= slot <= SLOTS:
        raise ScriptError(f"Slot {slot} is out of range; there are 1 to {SLOTS}")
    if slot == loader.loaded:
        raise ScriptError(f"The cartridge of slot {slot} is already loaded")
    if loader.status(slot) != 1:
        raise ScriptError(f"Slot {slot} is empty")
    with sem.scripted():
        sem.scope.load_grid(loader.slots[slot])
    loader.loaded, loader.stage_grid = slot, loader.slots[slot]
    sem.check_stop()
    return None


@command("UnloadCartridge")
def unload_cartridge(sem: SerialEM, call: Call) -> Values:
    """Bring the grid on the stage back to its slot."""
    loader = sem.autoloader
    if not loader.stage_grid:
        raise ScriptError("There is no cartridge on the stage")
    sem.wait(sem.scope.settings.load_s)
    loader.slots.setdefault(loader.loaded, loader.stage_grid)
    loader.loaded, loader.stage_grid = 0, ""
    return None
