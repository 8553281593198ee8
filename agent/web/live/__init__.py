"""The operator's page: what the agent sees and does, live, and an operator's word back to it.

Nothing is decided here. What the page asks for goes to the same desk as a request on the control socket.
"""
