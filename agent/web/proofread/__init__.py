"""Proofreading: an image with marks that a person removes, adds, moves and re-sizes; corrections teach the network."""

from agent.web.proofread.link import LinkAccess
from agent.web.proofread.page import Proofread
from agent.web.proofread.project import Mark, Project, ProjectError, Sheet, read_project, sizes_of
from agent.web.proofread.shelf import OneImage, Shelf

__all__ = [
    "LinkAccess",
    "Mark",
    "OneImage",
    "Project",
    "ProjectError",
    "Proofread",
    "Sheet",
    "Shelf",
    "read_project",
    "sizes_of",
]
