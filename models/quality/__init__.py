"""Quality of high-mag micrographs."""
