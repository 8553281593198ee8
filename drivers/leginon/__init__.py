"""Leginon, unmodified: it asks for squares and holes by HTTP or by an external command, and is answered here."""
