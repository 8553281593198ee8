"""What the operator's page costs the daemon, and how quickly it draws.

``python -m benchmarks.page`` prints, in one run:

* CPU share and memory of the daemon over a session of 8 h at 100 times its pace, without a page and with one that is
  open in a real browser, on two daemons at once (goal: the page costs under 5 % of one core, memory does not grow);
* time from a frame to its acknowledgement with no page and with 20 pages open, in alternating turns, and what the
  daemon's loop does meanwhile in CPU time, on a session with 5,000 holes (goal: p99 grows by less than 10 %);
* time from a click's request to its acknowledgement while models work (goal: under 200 ms);
* time to draw 5,000 holes on one atlas in a real browser, and the pace of moving it (goal: under 1 s).

Daemons and the clients in place of 20 browsers are processes of their own; CPU seconds are those of the process or
of the loop's thread, so that a busy machine hardly changes them.
"""

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.page_browser import CHROMIUM, browser_on
from benchmarks.page_clients import pages
from benchmarks.page_load import many, soak
from benchmarks.page_session import HOLES, SQUARES, Camera, daemon, get, plant

DRAWING = """async () => {
  const view = cryonaut.views.atlas;
  view.view = { x: 0, y: 0, scale: 1.0 };
  const once = [];
  for (let i = 0; i < 30; i++) {
    view.pan(1, 0);
    view.drawNow();
    once.push(view.drawn_ms);
  }
  const frames = [];
  let last = performance.now();
  for (let i = 0; i < 90; i++) {
    view.pan(Math.sin(i / 9) * 6, 2);
    if (i % 10 === 5) view.zoom(i % 20 > 9 ? 1.1 : 1 / 1.1);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last);
    last = performance.now();
  }
  return [once, frames];
}"""


def control(count: int, table: Table) -> None:
    """Requests from the page while models work."""
    times = []
    with (
        tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder,
        daemon(Path(folder), models=True) as running,
        pages(running.address, 1),
    ):
        camera = Camera(running.settings, side=2048)
        stop = threading.Event()

        def shoot() -> None:
            while not stop.is_set():
                camera.shoot()

        thread = threading.Thread(target=shoot)
        thread.start()
        token = get(running.address, "/me")["csrf"]
        connection = http.client.HTTPConnection(running.address, timeout=60)
        for number in range(count):
            verb = {"verb": "threshold", "name": "hole_score", "value": 0.3 + 0.1 * (number % 2)}
            body = json.dumps({"kind": "control", "request_id": f"bench-{number}", "verb": verb})
            begun = time.perf_counter()
            connection.request("POST", "/control", body, {"x-csrf-token": token, "content-type": "application/json"})
            answer = connection.getresponse()
            assert json.loads(answer.read())["ok"]
            times.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.05)
        stop.set()
        thread.join()
        connection.close()
    p50, p99 = statistics.median(times), float(np.percentile(times, 99))
    text = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(times):.0f} ms"
    table.add_row(
        "request acknowledged during inference", text, "< 200 ms", f"{count} requests, 2048² frames without pause"
    )


def draw(table: Table) -> None:
    """5,000 holes in a real browser."""
    with tempfile.TemporaryDirectory(prefix="cryonaut-bench-") as folder:
        plant(Path(folder) / "bench")
        with daemon(Path(folder)) as running, browser_on(running.address) as page:
            page.wait_for_function(f"() => cryonaut.model.holes.size === {SQUARES * HOLES}")
            loaded = page.evaluate("performance.now()")
            once, frames = page.evaluate(DRAWING)
    text = f"first {once[0]:.0f} ms, then median {statistics.median(once):.1f} ms, max {max(once):.0f} ms"
    table.add_row(f"draw {SQUARES * HOLES} holes", text, "< 1 s", "script time of one drawing, chromium without a GPU")
    text = f"median {statistics.median(frames):.0f} ms, p95 {float(np.percentile(frames, 95)):.0f} ms a frame"
    table.add_row("move and zoom them", text, "< 50 ms", "90 animation frames, rasterised in software")
    table.add_row(
        "page loaded with all of them", f"{loaded / 1e3:.2f} s", "< 3 s", "from navigation, snapshot included"
    )


def main() -> None:
    """Run all, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the parts with and without pages")
    parser.add_argument("--hours", type=float, default=8.0, help="length of the soaked session, played in a hundredth")
    parser.add_argument("--only", choices=("soak", "many", "control", "draw"))
    options = parser.parse_args()
    table = Table("what", "measured", "goal", "how", title="The operator's page", title_justify="left")
    parts: dict[str, Callable[[], None]] = {
        "soak": lambda: soak(options.hours, table),
        "many": lambda: many(options.seconds, table),
        "control": lambda: control(200, table),
        "draw": lambda: draw(table),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            if name in ("soak", "draw") and not CHROMIUM:
                table.add_row(name, "not measured", "–", "no chromium here")
                continue
            part()
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
