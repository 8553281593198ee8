"""Annotation: strokes painted on slices of a volume, a graph cut that finds the rest, corrections, labels."""

from agent.web.annotate.page import Annotate
from agent.web.annotate.project import Facts, read_facts, write_facts

__all__ = ["Annotate", "Facts", "read_facts", "write_facts"]
