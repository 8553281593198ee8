"""The daemon: frames in, decisions and targets out."""
