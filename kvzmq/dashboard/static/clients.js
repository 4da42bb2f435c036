// Clients: who is connected, those first that send most.

import { el, keyed, setText } from "./dom.js";
import { bytes, count, span, whole } from "./format.js";
import { ask, repeat } from "./stream.js";

const EVERY_MS = 1000;

const COLUMNS = [
  { name: "name", label: "Client", text: true, of: (one) => one.name, show: String },
  { name: "transport", label: "Transport", text: true, of: (one) => one.transport,
    show: (value) => ({ router: "ZeroMQ", tcp: "bridge" })[value] ?? value },
  { name: "address", label: "Address", text: true, of: (one) => one.address ?? "", show: (value) => value || "–" },
  { name: "rate", label: "Requests/s", of: (one) => one.requests_per_s, show: count, bar: true },
  { name: "received", label: "Received/s", of: (one) => one.received_bytes_per_s ?? -1,
    show: (value) => (value < 0 ? "–" : bytes(value)) },
  { name: "requests", label: "Requests", of: (one) => one.requests, show: whole },
  { name: "unread", label: "Unread", of: (one) => one.unread_bytes ?? -1,
    show: (value) => (value < 0 ? "–" : value === 0 ? "0" : bytes(value)), warn: (value) => value > 1 << 20 },
  { name: "dropped", label: "Dropped", of: (one) => one.replies_dropped ?? 0, show: whole, warn: (value) => value > 0 },
  { name: "watches", label: "Watches", of: (one) => one.watches, show: whole },
  { name: "connected", label: "Connected", of: (one) => one.connected_s ?? -1, show: (value) => (value < 0 ? "–" : span(value)) },
];

export function mount(root, { points }) {
  let sorted = "rate";
  let down = true;
  let clients = null;

  const heads = COLUMNS.map((column) => {
    const button = el("button", { type: "button", class: "sort", text: column.label, on: { click: () => sort(column) } });
    return el("th", { scope: "col", class: column.text ? "text" : "number", data: { column: column.name } }, button);
  });
  const body = el("tbody");
  const filter = el("input", { type: "search", id: "filter", placeholder: "Filter by name or address",
                               "aria-label": "Filter by name or address", on: { input: draw } });
  const note = el("p", { class: "facts", role: "status" });
  root.append(
    el("h1", { class: "hidden", text: "Clients" }),
    el("div", { class: "bar first" }, filter, note),
    el("div", { class: "panel scroll" },
      el("table", { class: "list clients" }, el("thead", {}, el("tr", {}, ...heads)), body)),
  );

  function sort(column) {
    down = sorted === column.name ? !down : !column.text;
    sorted = column.name;
    draw();
  }

  function draw() {
    for (const head of heads) {
      if (head.dataset.column === sorted) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    if (clients === null) return;
    const column = COLUMNS.find(({ name }) => name === sorted);
    const wanted = filter.value.toLowerCase();
    const seen = clients.filter((one) => `${one.name} ${one.address ?? ""}`.toLowerCase().includes(wanted));
    seen.sort((a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      const order = x < y ? -1 : x > y ? 1 : 0;
      return (down ? -order : order) || (a.name < b.name ? -1 : 1);
    });
    const most = Math.max(...seen.map((one) => one.requests_per_s), 1e-9);
    keyed(body, seen, (one) => one.name, make, (row, one) => {
      COLUMNS.forEach((each, at) => {
        const value = each.of(one);
        const cell = row.children[at];
        setText(cell.lastChild, each.show(value));
        if (each.warn) cell.classList.toggle("warn", each.warn(value));
        if (each.bar) cell.firstChild.style.width = `${Math.round((100 * one.requests_per_s) / most)}%`;
      });
    });
    const sessions = points.state?.stats.sessions;
    setText(note, `${wanted ? `${seen.length} of ` : ""}${clients.length} connection${clients.length === 1 ? "" : "s"}` +
      (sessions === undefined ? "" : `, ${whole(sessions)} session${sessions === 1 ? "" : "s"} remembered`));
  }

  function make() {
    return el("tr", {}, ...COLUMNS.map((column) =>
      el("td", { class: column.text ? "text" : "number", data: { label: column.label, column: column.name } },
        ...(column.bar ? [el("i", { class: "bar-of" })] : []), el("span"))));
  }

  const end = repeat(EVERY_MS, async () => {
    try {
      const found = await ask("clients");
      if (found.clients === null) {
        setText(note, "waiting for the server");
        return;
      }
      clients = found.clients;
      draw();
    } catch (error) {
      setText(note, error.message);
    }
  });
  draw();
  return { end };
}
