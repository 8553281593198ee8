"""``cryonaut watch`` and the completions: what a terminal shows."""

import io
import shutil
import subprocess

import pytest
from rich.console import Console

from agent import control_messages as say
from agent.cli import completions
from agent.cli.watch import picture
from agent.control_messages import Status
from agent.daemon import Daemon
from agent.desk import as_line
from agent.session import events as ev
from tests.helpers import ask

HOSTILE = "[red]not markup[/] [/nothing]"


def shown(status: Status, silent_s: float = 0.0) -> str:
    event = ev.Suspended(cause="link", detail=HOSTILE)
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(picture(status, [as_line(7, 1.7e9, event)], silent_s))
    return console.export_text()


async def status_of(daemon: Daemon) -> Status:
    status = (await ask(daemon, say.GetStatus())).status
    assert status is not None
    return status


async def test_the_screen_says_what_holds_the_session_and_shows_words_as_words(daemon: Daemon) -> None:
    text = shown(await status_of(daemon))
    assert "suspended" in text
    assert "held by link: waiting for the driver" in text
    assert HOSTILE in text
    assert "no answer" not in text


async def test_a_daemon_that_no_longer_answers_is_said(daemon: Daemon) -> None:
    assert "no answer for 42 s" in shown(await status_of(daemon), silent_s=42.0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_know_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    completions(shell)  # type: ignore[arg-type]
    script = capsys.readouterr().out
    assert "emergency-stop" in script
    if tool := shutil.which(shell):
        assert subprocess.run([tool, "-n"], input=script, text=True, timeout=60).returncode == 0
