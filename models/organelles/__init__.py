"""Organelles in volumes (FIB-SEM and the like): grey values, blocks, networks, labels and measurements.

The method is that of ASEM (Gallusser et al., J Cell Biol 222, e202208005, 2023) where nothing else is said.
"""
