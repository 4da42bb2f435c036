// Table: rows by prefix or by what their values hold, one of them whole with its history, and changes as they are made.

import { el, keyed, setText } from "./dom.js";
import { clock, moment, span, whole } from "./format.js";
import { ask, repeat } from "./stream.js";

const EVERY_MS = 500;
const FEED_MAX = 100;
const FLASH_MS = 900;
const LIVE_CHANGES_MAX = 1000;

export function mount(root, { points }) {
  const address = new URLSearchParams(location.search);
  let rows = [];
  let more = false;
  let chosen = null; // the key of the row that is shown whole
  // Each change costs the server a little for who follows it: of a busy table that is for the reader to decide.
  let live = address.has("prefix") || (points.latest("changes") ?? 0) < LIVE_CHANGES_MAX;
  let prefix = "";
  let number = null; // of the latest change seen below the prefix
  let ended = false;
  let feed = [];

  // ---- asking

  const prefixInput = el("input", { id: "prefix", type: "search", placeholder: "Prefix of keys; empty: all", spellcheck: "false",
                                    autocomplete: "off", value: address.get("prefix") ?? "" });
  const subkey = el("input", { id: "subkey", placeholder: "Subkey", spellcheck: "false", autocomplete: "off",
                               value: address.get("subkey") ?? "" });
  const subvalue = el("input", { id: "subvalue", placeholder: "Value: JSON, or text", spellcheck: "false", autocomplete: "off",
                                 value: address.get("subvalue") ?? "" });
  const browse = el("form", { class: "ask", on: { submit: (event) => { event.preventDefault(); load(); } } },
    el("label", { for: "prefix", text: "Browse" }), prefixInput, el("button", { text: "Show" }));
  const query = el("form", { class: "ask", on: { submit: (event) => { event.preventDefault(); find(); } } },
    el("label", { for: "subkey", text: "Query" }), subkey,
    el("label", { for: "subvalue", class: "hidden", text: "Value" }), subvalue, el("button", { text: "Find" }));
  const liveButton = el("button", { type: "button", id: "live", text: "Live", "aria-pressed": String(live), on: { click: toggleLive } });
  const note = el("p", { class: "facts", role: "status" });

  // ---- the parts

  const list = el("div", { class: "rows", role: "listbox", "aria-label": "Rows", tabindex: "0", on: { keydown: onListKey } });
  const moreButton = el("button", { type: "button", class: "quiet wide", text: "More rows", hidden: true, on: { click: () => load(true) } });
  const detail = el("section", { class: "panel detail", "aria-label": "Row" });
  const changes = el("ol", { class: "feed" });
  root.append(
    el("h1", { class: "hidden", text: "Table" }),
    el("div", { class: "bar first" }, browse, query, liveButton, note),
    el("div", { class: "columns" },
      el("section", { class: "panel listing", "aria-label": "Rows" },
        el("header", {}, el("h2", { text: "Rows" }), el("span", { class: "about", id: "rows-about" })), list, moreButton),
      el("div", { class: "side" }, detail,
        el("section", { class: "panel changes", "aria-label": "Changes" },
          el("header", {}, el("h2", { text: "Changes" }), el("span", { class: "about", id: "feed-about" })), changes)),
    ),
  );
  const rowsAbout = root.querySelector("#rows-about");
  const feedAbout = root.querySelector("#feed-about");
  const nothing = () => detail.replaceChildren(el("p", { class: "empty", text: "Choose a row to see all of it, and its history." }));
  nothing();

  // ---- rows

  async function load(goOn = false) {
    if (!goOn) {
      if (prefix !== prefixInput.value) {
        prefix = prefixInput.value;
        number = null;
        feed = [];
        drawFeed();
      }
      remember({ prefix: prefix || null });
    }
    await fill(async () => {
      const found = await ask("rows", { prefix, after: goOn && rows.length ? rows.at(-1).key : null });
      rows = goOn ? [...rows, ...found.rows] : found.rows;
      more = found.more;
      const shown = `${whole(rows.length)}${more ? " of more" : ""}`;
      setText(rowsAbout, prefix ? `${shown} below ${JSON.stringify(prefix)}` : shown);
    });
  }

  async function find() {
    if (!subkey.value) {
      subkey.focus();
      return;
    }
    remember({ subkey: subkey.value, subvalue: subvalue.value });
    await fill(async () => {
      const found = await ask("query", { subkey: subkey.value, subvalue: subvalue.value });
      rows = found.rows;
      more = false;
      const shown = found.count > rows.length ? `the first ${whole(rows.length)} of ${whole(found.count)}` : whole(found.count);
      setText(rowsAbout, `${shown} with ${subkey.value}: ${subvalue.value}`);
    });
  }

  async function fill(work) {
    try {
      await work();
      setText(note, "");
    } catch (error) {
      setText(note, error.message);
    }
    drawRows();
  }

  function remember(parameters) {
    const search = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null));
    history.replaceState(null, "", `/table${search.size ? `?${search}` : ""}`);
  }

  function drawRows() {
    keyed(list, rows, (row) => row.key,
      (row) => el("div", { class: "row", role: "option", data: { key: row.key }, on: { click: () => choose(row.key) } },
        el("span", { class: "key mono" }), el("span", { class: "of mono" }), el("span", { class: "kind" })),
      (node, row) => {
        setText(node.children[0], row.name);
        setText(node.children[1], row.text);
        setText(node.children[2], row.kind);
        node.classList.toggle("gone", row.kind === "removed");
        node.setAttribute("aria-selected", String(row.key === chosen));
      });
    moreButton.hidden = !more;
    list.classList.toggle("none", rows.length === 0);
  }

  function onListKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !rows.length) return;
    event.preventDefault();
    const at = rows.findIndex((row) => row.key === chosen);
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
    choose(next.key);
    list.children[rows.indexOf(next)]?.scrollIntoView({ block: "nearest" });
  }

  // ---- one row

  async function choose(key) {
    chosen = key;
    drawRows();
    await showRow(key);
  }

  async function showRow(key) {
    let found;
    try {
      found = await ask("row", { key });
    } catch (error) {
      if (chosen === key) detail.replaceChildren(el("p", { class: "empty", text: error.message }));
      return;
    }
    if (chosen !== key) return;
    const { row } = found;
    const known = rows.find((each) => each.key === key);
    const name = row?.name ?? known?.name ?? key;
    const value = row
      ? el("pre", { class: "value", tabindex: "0", text: row.text })
      : el("p", { class: "empty", text: "This row is not in the table now." });
    const about = row
      ? [row.kind, found.ttl_s === null ? null : `expires in ${span(found.ttl_s)}`, row.whole ? null : "not all of it is shown"]
      : ["removed"];
    const past = el("div", { class: "past" });
    const past_about = el("span", { class: "about" });
    const ask_history = el("button", { type: "button", text: "Show history", on: { click: () => showHistory(key, past, past_about) } });
    const again = detail.querySelector(".past");
    const keeps = detail.dataset.key === key && again?.childElementCount;
    detail.dataset.key = key;
    detail.replaceChildren(
      el("header", {}, el("h2", { class: "mono", text: name }), el("span", { class: "about", text: about.filter(Boolean).join("  ·  ") })),
      row && row.text.length > 1200 ? folded(value) : value,
      el("header", { class: "second" }, el("h2", { text: "History" }), past_about, ask_history), past,
    );
    if (keeps) showHistory(key, past, past_about);
  }

  function folded(value) {
    const button = el("button", { type: "button", class: "quiet wide", text: "Unfold" });
    const box = el("div", { class: "folded" }, value, button);
    button.addEventListener("click", () => {
      const isOpen = box.classList.toggle("open");
      button.textContent = isOpen ? "Fold" : "Unfold";
    });
    return box;
  }

  async function showHistory(key, into, about) {
    let found;
    try {
      found = await ask("history", { key });
    } catch (error) {
      setText(about, error.message);
      return;
    }
    setText(about, "");
    into.replaceChildren(...found.parts.flatMap((part) => [
      el("p", { class: "hint source", text: `${part.source === "log" ? "From the log on disk" : "From the server's memory"}, ${part.since}: ` +
        `${part.more ? "the latest " : ""}${part.changes.length ? whole(part.changes.length) : "no change is left"}` }),
      el("ol", { class: "feed" }, ...part.changes.map(toldChange)),
    ]));
    if (found.parts.every((part) => part.source !== "log")) {
      into.append(el("p", { class: "hint", text:
        "The server tells values and revisions, not times and sessions. kvzmq dashboard --data DIR, on the server's machine, reads these from its log." }));
    }
  }

  function toldChange(change) {
    const isRemoved = change.text === null;
    return el("li", {},
      el("span", { class: "when", text: change.time_s === null ? `revision ${whole(change.revision)}` : moment(change.time_s) }),
      el("span", { class: isRemoved ? "what gone" : "what", text: change.operation }),
      el("span", { class: "mono of", title: change.text ?? "", text: change.text ?? "" }),
      change.time_s === null ? null : el("span", { class: "who dim", title: change.session ?? "",
        text: change.session ? `session ${change.session.slice(0, 8)}, request ${whole(change.seq)}` : "no session" }));
  }

  // ---- changes as they are made

  function toggleLive() {
    live = !live;
    number = null;
    liveButton.setAttribute("aria-pressed", String(live));
    drawFeed();
  }

  function take(change) {
    feed.unshift(change);
    const at = rows.findIndex((row) => row.key === change.key);
    if (at < 0) return;
    rows[at] = { ...rows[at], kind: change.kind, text: change.removed ? "" : change.text, whole: change.whole };
    const node = list.children[at];
    if (node) {
      node.classList.add("flash");
      setTimeout(() => node.classList.remove("flash"), FLASH_MS);
    }
  }

  function drawFeed(missed = 0) {
    keyed(changes, feed, (change) => change.number,
      (change) => el("li", {},
        el("span", { class: "when", text: clock(change.time_s) }),
        el("span", { class: "revision dim", text: whole(change.revision) }),
        el("span", { class: `mono key ${change.removed ? "gone" : ""}`, text: change.name }),
        el("span", { class: "mono of", text: change.removed ? "removed" : change.text })),
      () => {});
    const below = prefix ? `below ${JSON.stringify(prefix)}` : "of all rows";
    setText(feedAbout, live ? `${below}, as they are made${missed ? `; ${whole(missed)} not shown` : ""}` : "not followed: the button Live does that");
  }

  const stop = repeat(EVERY_MS, async () => {
    if (!live || ended) return;
    const of = prefix;
    try {
      const found = await ask("changes", { prefix: of, after: number });
      if (ended || of !== prefix || !live) return;
      number = found.last;
      for (const change of found.changes) take(change);
      feed.length = Math.min(feed.length, FEED_MAX);
      if (found.trouble) setText(feedAbout, found.trouble);
      else drawFeed(found.missed);
      if (found.changes.length) drawRows();
      if (found.changes.some((change) => change.key === chosen)) showRow(chosen);
    } catch (error) {
      setText(feedAbout, error.message);
    }
  });

  drawFeed();
  if (address.has("subkey")) find();
  else load();
  return {
    end() {
      ended = true;
      stop();
    },
  };
}
