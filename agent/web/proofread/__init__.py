"""Proofreading: an image with marks that a person removes, adds, moves and re-sizes; corrections teach the network."""

from agent.web.proofread.link import LinkAccess
from agent.web.proofread.page import proofread_page
from agent.web.proofread.project import Mark, Project, ProjectError, Sheet, read_project

__all__ = ["LinkAccess", "Mark", "Project", "ProjectError", "Sheet", "proofread_page", "read_project"]
