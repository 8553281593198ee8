// The line to the daemon: a stream of events in, Control messages out. Knows when what is shown is stale.

const STALE_MS = 7000;
const AGAIN_MS = 1500;

export class Link {
  /** @param {{hello: Function, news: Function, beat: Function, line: Function}} on */
  constructor(on) {
    this.on = on;
    this.csrf = "";
    this.heard = 0;
    this.source = null;
    this.stale = true;
    setInterval(() => this.look(), 1000);
  }

  open() {
    this.source?.close();
    const source = new EventSource("/stream");
    this.source = source;
    source.addEventListener("hello", (event) => this.take(event, this.on.hello));
    source.addEventListener("news", (event) => this.take(event, this.on.news));
    source.addEventListener("beat", (event) => this.take(event, this.on.beat));
    source.onerror = () => {
      source.close();
      if (this.source === source) setTimeout(() => this.source === source && this.again(), AGAIN_MS);
    };
  }

  async again() {
    // a stream that is refused says nothing about why: ask, so that a revoked key leads to the sign-in
    const source = this.source;
    try {
      const answer = await fetch("/me", { headers: { accept: "application/json" } });
      if (answer.status === 401) location.assign("/signin");
    } catch { /* the daemon is away: go on asking */ }
    if (this.source === source) this.open();
  }

  async take(event, handle) {
    this.heard = performance.now();
    this.look();
    await handle(JSON.parse(event.data));
  }

  look() {
    const silent_ms = performance.now() - this.heard;
    this.stale = !this.heard || silent_ms > STALE_MS;
    this.on.line(this.stale, silent_ms / 1000);
  }

  /** Something the daemon knows; throws with its words where it refuses. */
  async get(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" } });
    if (answer.status === 401) location.assign("/signin");
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
    return body;
  }

  async whoami() {
    const me = await this.get("/me");
    this.csrf = me.csrf;
    return me;
  }

  /** Send a Control message; {ok, text} comes back. Sent twice with one id, it is carried out once. */
  async control(verb) {
    const request_id = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    const body = JSON.stringify({ kind: "control", request_id, verb });
    for (const last of [false, true]) {
      try {
        const answer = await fetch("/control", {
          method: "POST",
          headers: { "content-type": "application/json", "x-csrf-token": this.csrf },
          body,
        });
        if (answer.status === 403 && !last) {
          await this.whoami(); // the daemon was started again: ask for its new token, once
          continue;
        }
        const reply = await answer.json();
        return { ok: Boolean(reply.ok), text: reply.text || reply.error || "" };
      } catch (error) {
        if (last) return { ok: false, text: `the daemon does not answer: ${error.message}` };
      }
    }
    return { ok: false, text: "not sent" };
  }
}
