"""XML of strangers: no entities, no document types, no file larger than it may be; tags by their plain name."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from agent.errors import BadFileError

MOST_BYTES = 256 << 20


def read_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises
    ------
    BadFileError
        If it cannot be read, is damaged or too large, or has entities or a document type.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFileError(f"{path}: {path.stat().st_size} bytes; at most {MOST_BYTES} are read")
        raw = path.read_bytes()
        root: Element = fromstring(raw, forbid_dtd=True)
    except OSError as error:
        raise BadFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DefusedXmlException as error:
        raise BadFileError(f"{path}: has entities or a document type, which no session file needs") from error
    except (ParseError, ValueError, RecursionError, MemoryError, LookupError) as error:
        raise BadFileError(f"{path}: no XML, or damaged: {' '.join(str(error).split())[:200]}") from error
    return root


def plain(element: Element) -> str:
    """Name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def child(element: Element | None, *names: str) -> Element | None:
    """The element down the path of ``names``; None where one is missing."""
    for name in names:
        if element is None:
            return None
        element = next((inner for inner in element if plain(inner) == name), None)
    return element


def text(element: Element | None, *names: str) -> str | None:
    """Text down the path of ``names``; None where there is none."""
    found = child(element, *names)
    said = (found.text or "").strip() if found is not None else ""
    return said or None


def all_of(element: Element, name: str) -> list[Element]:
    """Every element of that name below ``element``."""
    return [inner for inner in element.iter() if plain(inner) == name]
