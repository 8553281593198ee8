"""Ranks, routes and budgets: pure functions of the session state."""
