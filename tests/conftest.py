"""Fixtures for what runs: settings on free ports, a daemon in this process, a guard against tasks left running."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import Daemon
from agent.settings import Settings
from tests.helpers import RawDriver, running, settings_in


@pytest.fixture
async def _task_guard() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)  # what was cancelled a moment ago may still have to end
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"


@pytest.fixture(autouse=True)
def no_leftover_tasks(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves a task running."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_task_guard")


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that a test changes: override with ``@pytest.mark.parametrize("changes", [{...}])``."""
    return {}


@pytest.fixture
def settings(tmp_path: Path, changes: dict[str, Any]) -> Settings:
    """Settings with free ports and a folder of their own."""
    return settings_in(tmp_path, **changes)


@pytest.fixture
async def daemon(settings: Settings) -> AsyncIterator[Daemon]:
    """A running daemon; ``daemon.endpoints`` has the real ports."""
    async with running(settings) as daemon:
        yield daemon


@pytest.fixture
async def raw(daemon: Daemon) -> AsyncIterator[RawDriver]:
    """A driver that says exactly what a test wants it to say."""
    driver = RawDriver(daemon.endpoints["drivers"])
    yield driver
    driver.close()
