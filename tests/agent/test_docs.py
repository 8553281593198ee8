"""The documents say what the program does."""

import re
from pathlib import Path

from cyclopts import App
from pydantic import BaseModel

from agent.cli import app
from agent.messages import ErrorKind
from agent.settings import DEFAULT_ON_ERROR, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *ROOT.glob("*.md"),
    *(file for folder in ("docs", "models", "simulators") for file in (ROOT / folder).rglob("*.md")),
)


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


def test_every_link_in_a_document_leads_somewhere() -> None:
    links = [
        (document, *link.partition("#")[::2])
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
        if not link.startswith("http")
    ]
    assert len(links) > 50
    lost = [(document.name, path) for document, path, _ in links if path and not (document.parent / path).exists()]
    assert not lost
    for document, path, heading in links:
        target = document.parent / path if path else document
        if heading and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]


def test_every_command_and_option_that_a_document_names_exists() -> None:
    checked = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for start, words in re.findall(r"(^|.)cryonaut ([a-z]+ ?[^`\n#|]*)", text, re.MULTILINE):
            command: App = app
            left = [word.strip("`,.;:()[]") for word in words.split("  ")[0].split()]
            while left and left[0] in command:
                command = command[left.pop(0)]
            if not start:  # a line to type
                assert command is not app, f"{document.name}: cryonaut {words}"
                assert command.default_command is not None or not left, f"{document.name}: cryonaut {words}"
            options = [word.split("=")[0] for word in left if word.startswith("--")]
            if command is app or (options and command.default_command is None):
                continue  # prose; a line about a whole family of commands
            known = {"--help"}
            if options:
                known |= {name for one in command.assemble_argument_collection() for name in one.names}
            assert known.issuperset(options), f"{document.name}: cryonaut {words}"
            checked += 1
    assert checked > 150
