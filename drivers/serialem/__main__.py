"""``python -m drivers.serialem``: the driver alone, for a microscope PC with as few packages as possible."""

import argparse
import sys
from pathlib import Path

from agent import logs
from agent.errors import CryonautError
from drivers.serialem.run import run
from drivers.serialem.settings import load


def main() -> None:
    """Read the settings and be the driver; what a person can mend is one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m drivers.serialem", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/serialem.yaml"))
    parser.add_argument("--mode", choices=("pilot", "advisor"), help="instead of the config's")
    options = parser.parse_args()
    try:
        settings = load(options.config, mode=options.mode)
        logs.configure()
        run(settings)
    except CryonautError as error:
        sys.stderr.writelines(f"cryonaut: {line}\n" for line in str(error).splitlines())
        sys.exit(1)


if __name__ == "__main__":
    main()
