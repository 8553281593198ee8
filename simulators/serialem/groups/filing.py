"""Image files, their .mdoc, and the working directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PureWindowsPath

from simulators.serialem.buffers import ImageBuffer
from simulators.serialem.commands import Call, ScriptError, Values, command
from simulators.serialem.files import ImageFile
from simulators.serialem.program import SerialEM


@command("SetDirectory")
def set_directory(sem: SerialEM, call: Call) -> Values:
    """Change the working directory."""
    sem.set_directory(call.text(1))
    return None


@command("ReportDirectory")
def report_directory(sem: SerialEM, call: Call) -> Values:
    """The working directory."""
    return sem.directory


@command("AllowFileOverwrite")
def allow_file_overwrite(sem: SerialEM, call: Call) -> Values:
    """Whether OpenNewFile may replace a file, for this script."""
    sem.script.allow_overwrite = call.integer(1) != 0
    return None


def open_file(sem: SerialEM, name: str, *, montage: bool = False) -> ImageFile:
    """Open a new stack and make it the current one."""
    if any(file.path == sem.path(name) for file in sem.files):
        raise ScriptError(f"The file {name} is already open")
    file = ImageFile.new(sem.path(name), name, overwrite=sem.script.allow_overwrite, montage=montage)
    sem.files.append(file)
    sem.current_file = len(sem.files) - 1
    return file


def current(sem: SerialEM) -> ImageFile:
    """The current file; `ScriptError` when none is open."""
    if sem.current_file is None:
        raise ScriptError("There is no open image file")
    return sem.files[sem.current_file]


@command("OpenNewFile")
def open_new_file(sem: SerialEM, call: Call) -> Values:
    """Open a new stack."""
    open_file(sem, call.text(1))
    return None


@command("OpenOldFile")
def open_old_file(sem: SerialEM, call: Call) -> Values:
    """Open an existing stack."""
    sem.files.append(ImageFile.old(sem.path(call.text(1)), call.text(1)))
    sem.current_file = len(sem.files) - 1
    return None


@command("IsImageFileOpen")
def is_image_file_open(sem: SerialEM, call: Call) -> Values:
    """0, or the number of the file."""
    wanted = sem.path(call.text(1))
    return next((number for number, file in enumerate(sem.files, start=1) if file.path == wanted), 0)


@command("SwitchToFile")
def switch_to_file(sem: SerialEM, call: Call) -> Values:
    """Make another open file the current one, counted from 1."""
    if not 1 <= call.integer(1) <= len(sem.files):
        raise ScriptError(f"There is no open file {call.integer(1)}; {len(sem.files)} are open")
    sem.current_file = call.integer(1) - 1
    return None


@command("ReportFileNumber")
def report_file_number(sem: SerialEM, call: Call) -> Values:
    """Number of the current file, or -1."""
    return -1 if sem.current_file is None else sem.current_file + 1


@command("ReportCurrentFilename")
def report_current_filename(sem: SerialEM, call: Call) -> Values:
    """The current file's path; with 1 its root, extension, folder and name, too."""
    return name_parts(current(sem).name, parts=call.integer(1) != 0)


def name_parts(name: str, *, parts: bool) -> Values:
    """A path; or its root, extension, folder, and name."""
    if not parts:
        return name
    path = PureWindowsPath(name)
    folder = name[: len(name) - len(path.name)]
    return folder + path.stem, path.suffix, folder, path.name


@command("ReportFileZsize")
def report_file_zsize(sem: SerialEM, call: Call) -> Values:
    """Sections of the current file."""
    return current(sem).sections


@command("SetNewFileType")
def set_new_file_type(sem: SerialEM, call: Call) -> Values:
    """0, MRC, is the one type here."""
    if call.integer(1) != 0:
        raise ScriptError("This simulator writes MRC files only: SetNewFileType 0")
    return None


@command("Save", "S")
def save(sem: SerialEM, call: Call) -> Values:
    """Save a buffer as the next section of the current file."""
    letter = call.text(1, "A")
    image = sem.buffers.get(letter)
    file = current(sem)
    section = file.append(image)
    remember(sem, letter, file, section)
    return None


def remember(sem: SerialEM, letter: str, file: ImageFile, section: int) -> None:
    """Note with the buffer where it was saved."""
    image = sem.buffers.get(letter)
    sem.buffers.images[sem.buffers.number(letter)] = replace(image, file=file.name, section=section)


@command("CloseFile")
def close_file(sem: SerialEM, call: Call) -> Values:
    """Close the current file."""
    file = current(sem)
    file.close()
    sem.files.remove(file)
    sem.current_file = len(sem.files) - 1 if sem.files else None
    if file.montage:
        sem.montage = None
    return None


@command("AddToAutodoc")
def add_to_autodoc(sem: SerialEM, call: Call) -> Values:
    """A line for the section saved last."""
    file = current(sem)
    if not file.sections:
        raise ScriptError("There is no section yet to which to add a value")
    file.pending[call.text(1)] = call.text(2)
    return None


@command("WriteAutodoc")
def write_autodoc(sem: SerialEM, call: Call) -> Values:
    """Write the lines of AddToAutodoc."""
    current(sem).write_pending()
    return None


def _read(sem: SerialEM, file: ImageFile, section: int, letter: str) -> None:
    sem.buffers.put(letter or "Q", ImageBuffer(file.read(section), file=file.name, section=section))


@command("ReadFile")
def read_file(sem: SerialEM, call: Call) -> Values:
    """A section of the current file, from 0, into a buffer (the read buffer Q)."""
    _read(sem, current(sem), call.integer(1), call.text(2))
    return None


@command("ReadOtherFile")
def read_other_file(sem: SerialEM, call: Call) -> Values:
    """A section of any file into a buffer."""
    file = ImageFile.old(sem.path(call.text(3)), call.text(3))
    try:
        _read(sem, file, call.integer(1), call.text(2))
    finally:
        file.close()
    return None
