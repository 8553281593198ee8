"""The documents say what the program does."""

import re
from pathlib import Path

from pydantic import BaseModel

from agent.messages import ErrorKind
from agent.settings import DEFAULT_ON_ERROR, Settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_stands_in_the_configuration_page_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    defaults = Settings()
    assert set(sections) == set(Settings.model_fields)
    for name in Settings.model_fields:
        section = getattr(defaults, name)
        if isinstance(section, BaseModel):
            rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", sections[name], re.MULTILINE))
            assert set(rows) == set(type(section).model_fields), name
            for key, shown in rows.items():
                value = getattr(section, key)
                if isinstance(value, str | int | float) and value != "":
                    assert shown == f"`{value}`", f"{name}.{key}"


def test_every_error_kind_stands_in_the_configuration_page_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for kind in ErrorKind:
        row = DEFAULT_ON_ERROR[kind]
        assert f"| `{kind}` | `{{retries: {row.retries}, then: {row.then}" in text


def test_every_file_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert not missing
