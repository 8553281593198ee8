"""The command line: the one place that may import everything.

Commands import what they need inside their functions, so that ``--help`` and small commands are quick.
"""

import sys
from typing import Literal

from cyclopts import App

from agent import __version__
from agent.cli.annotate import annotate
from agent.cli.annotate_page import annotate_work
from agent.cli.control import app as control
from agent.cli.demo import demo
from agent.cli.doctor import doctor
from agent.cli.driver import app as driver
from agent.cli.evaluate import app as evaluate
from agent.cli.find import app as find
from agent.cli.judge import judge
from agent.cli.keys import app as keys
from agent.cli.measure import app as measure
from agent.cli.notices import app as notices
from agent.cli.proofread import proofread
from agent.cli.replay import replay
from agent.cli.report import report
from agent.cli.run import run
from agent.cli.segment import app as segment
from agent.cli.session import app as session
from agent.cli.simulate import app as simulate
from agent.cli.train import app as train
from agent.cli.view import view
from agent.cli.volume import app as volume
from agent.cli.watch import watch
from agent.errors import CryonautError

HELP = """Cryonaut runs electron microscopes through the night.

Start with `cryonaut demo`: a whole simulated session of one grid, then a report to open.
"""

app = App(name="cryonaut", help=HELP, version=__version__, help_format="markdown")

for command in (demo, run, judge, watch, report, doctor, proofread, annotate, replay, view):
    app.command(command)
app.command(annotate_work, show=False)  # the work of the page of `annotate`, in a process of its own
for group in (control, driver, evaluate, find, keys, measure, notices, segment, session, simulate, train, volume):
    app.command(group)


@app.command
def completions(shell: Literal["bash", "zsh", "fish"] = "bash") -> None:
    """Print the script that completes commands and options in your shell.

    Such as: `cryonaut completions bash > ~/.local/share/bash-completion/completions/cryonaut`

    Parameters
    ----------
    shell
        Which shell.
    """
    print(app.generate_completion(prog_name="cryonaut", shell=shell))


def main() -> None:
    """Run the command line; what a person can mend is one line on stderr and exit status 1."""
    try:
        app()
    except CryonautError as error:
        for line in str(error).splitlines():
            print(f"cryonaut: {line}", file=sys.stderr)
        sys.exit(1)
    except ImportError as error:
        if not any(name in str(error) for name in ("libGL", "libgthread", "libglib")):
            raise
        print(
            f"cryonaut: OpenCV cannot start here: {error}; `apt-get install libgl1 libglib2.0-0`, or put"
            " opencv-python-headless in the place of opencv-python",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `cryonaut ... | head`
        sys.stderr.close()
        sys.exit(0)
