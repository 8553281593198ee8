"""One grid with a known truth, rendered at any magnification."""
