"""SerialEM as its external-Python socket shows it, in front of the virtual microscope; see README.md here."""

from simulators.serialem.program import Calibration, SerialEM
from simulators.serialem.server import SerialEMServer

__all__ = ["Calibration", "SerialEM", "SerialEMServer"]
