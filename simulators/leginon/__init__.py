"""A simulated Leginon: asks for squares and holes as the real one does, and reads the answers with its rules."""

from simulators.leginon.program import LeginonProgram, Route

__all__ = ["LeginonProgram", "Route"]
