// Servers: what a catalog knows, by table, and how far servers of one table are apart.

import { el, keyed, setText } from "./dom.js";
import { span, whole } from "./format.js";
import { ask, repeat } from "./stream.js";

const EVERY_MS = 2000;

const COLUMNS = [
  { label: "Project", text: true, of: (one) => one.project || "–" },
  { label: "Server", text: true, of: (one) => one.url, mono: true },
  { label: "Table", text: true, of: (one) => (one.lineage ? one.lineage.slice(0, 8) : "–"), mono: true },
  { label: "Epoch", text: true, of: (one) => (one.epoch ? one.epoch.slice(0, 8) : "–"), mono: true },
  { label: "Revision", of: (one) => whole(one.revision) },
  { label: "Behind", of: (one) => (one.lag === null ? "–" : whole(one.lag)), warn: (one) => one.lag > 1000 },
  { label: "Rows", of: (one) => whole(one.keys) },
  { label: "Clients", of: (one) => whole(one.clients) },
  { label: "Owner", text: true, of: (one) => one.owner || "–" },
  { label: "Announced", of: (one) => `${span(one.heard_s)} ago` },
  { label: "Answers", text: true, of: (one) => (one.asked ? "yes" : (one.trouble ?? "no")), warn: (one) => !one.asked },
];

export function mount(root) {
  const about = el("p", { class: "facts", role: "status" });
  const body = el("tbody");
  const table = el("table", { class: "list servers" },
    el("thead", {}, el("tr", {}, ...COLUMNS.map((column) =>
      el("th", { scope: "col", class: column.text ? "text" : "number", text: column.label })))), body);
  const panel = el("div", { class: "panel scroll", hidden: true }, table);
  const empty = el("div", { class: "panel empty-panel", hidden: true }, el("h2"), el("p"), el("p", { class: "hint" }));
  root.append(
    el("div", { class: "bar first" }, el("h1", { class: "title", text: "Servers" }), about), panel, empty);

  function say(what, why, hint) {
    panel.hidden = true;
    empty.hidden = false;
    [what, why, hint].forEach((text, at) => setText(empty.children[at], text));
  }

  const end = repeat(EVERY_MS, async () => {
    let found;
    try {
      found = await ask("servers");
    } catch (error) {
      setText(about, error.message);
      return;
    }
    const tables = new Set(found.servers.map((one) => one.lineage)).size;
    setText(about, `catalog at ${found.catalog}`);
    if (found.trouble) {
      say("No catalog answers", found.trouble,
        "kvzmq catalog serves one, kvzmq server --project NAME announces a server to it, and kvzmq dashboard --catalog HOST:PORT names it.");
      return;
    }
    if (!found.servers.length) {
      say("The catalog knows no server", `at ${found.catalog}`, "kvzmq server --project NAME --catalog HOST:PORT announces one, within a minute.");
      return;
    }
    setText(about, `${found.servers.length} server${found.servers.length === 1 ? "" : "s"}, ${tables} table${tables === 1 ? "" : "s"}, ` +
      `catalog at ${found.catalog}${found.left_out ? `; ${found.left_out} not shown` : ""}`);
    panel.hidden = false;
    empty.hidden = true;
    keyed(body, found.servers, (one) => `${one.project} ${one.url} ${one.lineage}`,
      () => el("tr", {}, ...COLUMNS.map((column) =>
        el("td", { class: `${column.text ? "text" : "number"}${column.mono ? " mono" : ""}`, data: { label: column.label } }, el("span")))),
      (row, one) => COLUMNS.forEach((column, at) => {
        setText(row.children[at].firstChild, column.of(one));
        if (column.warn) row.children[at].classList.toggle("warn", Boolean(column.warn(one)));
      }));
  });
  return { end };
}
