"""The numbers of ``numbers.yaml``, where each has its source."""

from pathlib import Path
from typing import Any

import yaml

NUMBERS: dict[str, dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("numbers.yaml").read_text(encoding="utf-8")
)
