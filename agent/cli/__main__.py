"""``python -m agent.cli`` is ``cryonaut``."""

from agent.cli import main

main()
