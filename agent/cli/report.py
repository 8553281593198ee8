"""``cryonaut report``: a session as one HTML file."""

from pathlib import Path


def report(session: Path, *, out: Path | None = None) -> None:
    """Render a session folder as one self-contained HTML file; works while the session runs, too.

    Such as:

    - `cryonaut report sessions/tonight`

    Parameters
    ----------
    session
        The session's folder.
    out
        Where to write; by default `report.html` inside the folder.
    """
    from agent.report import render

    print(render(session, out))
