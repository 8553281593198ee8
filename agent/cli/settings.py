"""``--set key=value``: a setting changed for one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from agent.errors import ConfigError
from agent.settings import Settings, load, preset_folder


def load_settings(config: Path | None, changes: Sequence[str]) -> Settings:
    """Settings of ``config`` with ``changes`` such as ``squares.per_grid=5`` on top.

    A bare name stands for a preset: ``demo`` is ``config/demo.yaml``.
    """
    return load(find_config(config), parse(changes))


def find_config(config: Path | None) -> Path | None:
    """The file that ``config`` means."""
    if config is None or config.exists() or config.suffix:
        return config
    preset = preset_folder() / f"{config}.yaml"
    return preset if preset.exists() else config


def parse(changes: Sequence[str]) -> dict[str, Any]:
    """``["a.b=1"]`` as ``{"a.b": 1}``; values are YAML."""
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {change}: write section.key=value, such as squares.per_grid=5")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: the value is no YAML") from error
    return values
