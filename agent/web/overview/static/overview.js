// Asks for all daemons every few seconds. Words from them are put in as text only.

const EVERY_MS = 5000;
const MARKS = { well: "●", warn: "▲", bad: "■" };

function element(tag, parent, words = "", className = "") {
  const made = document.createElement(tag);
  if (words) made.textContent = words;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

function mood({ status, trouble }) {
  if (trouble || !status || status.phase === "fault" || Object.keys(status.suspensions).length) return "bad";
  return status.phase === "collecting" && !status.degraded ? "well" : "warn";
}

function card(row) {
  const item = document.createElement("li");
  item.className = mood(row);
  const head = element("h2", item);
  element("span", head, `${MARKS[mood(row)]} ${row.name}`);
  if (/^(\/|https?:\/\/)/.test(row.page)) Object.assign(element("a", head, "open its page"), { href: row.page });
  const s = row.status;
  if (!s) {
    element("p", item, "no answer", "phase");
    element("p", item, row.trouble, "soft small");
    return item;
  }
  const held = Object.entries(s.suspensions).map(([cause, why]) => `held by ${cause}: ${why}`);
  element("p", item, s.phase, "phase");
  element("p", item, held.join("; ") || s.working_on || s.why, "soft");
  const list = element("dl", item);
  const judged = s.counts.judged || 0;
  const facts = [
    ["session", s.folder.split("/").pop()],
    ["grid", s.grid_id || "–"],
    ["squares", `${s.counts.squares_mapped} of ${s.counts.squares}`],
    ["exposures", String(s.counts.exposures)],
    ["good", judged ? `${Math.round((100 * s.counts.good) / judged)} % of ${judged}` : "–"],
    ["running for", `${s.spent.hours.toFixed(1)} h`],
    ...(s.degraded ? [["degraded", s.degraded]] : []),
  ];
  for (const [name, value] of facts) {
    element("dt", list, name);
    element("dd", list, value, "num");
  }
  return item;
}

async function look() {
  const asked = document.getElementById("asked");
  try {
    const answer = await fetch("/api/overview", { headers: { accept: "application/json" } });
    if (answer.status === 401) location.assign("/signin?next=/overview");
    const rows = await answer.json();
    document.getElementById("rows").replaceChildren(...rows.map(card));
    const bad = rows.filter((row) => mood(row) === "bad").length;
    asked.textContent = `asked at ${new Date().toLocaleTimeString("en-GB", { hourCycle: "h23" })}; ${bad ? `${bad} need${bad === 1 ? "s" : ""} somebody` : "all well"}`;
    document.title = `${bad ? `■ ${bad}` : "●"} Overview – Cryonaut`;
  } catch (error) {
    asked.textContent = `this daemon does not answer: ${error.message}; what you see is from before`;
  }
  setTimeout(look, EVERY_MS);
}

look();
