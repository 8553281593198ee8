"""SerialEM: a driver over SerialEM's own external-Python socket, in pure Python."""
