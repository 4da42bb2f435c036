// Joins the page: the stream, the header, alarms, and the part that the address names.

import { el, keyed, setText } from "./dom.js";
import { clock } from "./format.js";
import { Points } from "./points.js";
import { follow } from "./stream.js";
import { startTheme } from "./theme.js";

const PAGES = { "/": "overview", "/clients": "clients", "/table": "table", "/lanes": "lanes", "/servers": "servers" };

const main = document.getElementById("main");
const points = new Points();
let link = "wait";
let shown = null;
let serial = 0;

async function show(focus) {
  const name = PAGES[location.pathname] ?? "overview";
  const turn = ++serial;
  const { mount } = await import(`./${name}.js`);
  if (turn !== serial) return;
  shown?.end?.();
  main.replaceChildren();
  main.dataset.page = name;
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · kvzmq`;
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.dataset.page === name) {
      tab.setAttribute("aria-current", "page");
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else tab.removeAttribute("aria-current");
  }
  shown = mount(main, { points, go });
  if (points.state) shown.draw?.("hello");
  if (focus) main.focus({ preventScroll: true });
}

function go(address) {
  history.pushState(null, "", address);
  show(true);
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.(".tabs a");
  if (!anchor || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(anchor.href);
});
window.addEventListener("popstate", () => show(false));

// ---- the header

const pill = document.getElementById("state");

function drawHeader() {
  const state = points.state;
  if (state) setText(document.getElementById("url"), state.url);
  const [name, text] =
    link === "lost" ? ["lost", "dashboard gone"]
    : !state || (!state.silence && state.stats.pid === undefined) ? ["wait", "connecting"]
    : state.silence ? ["silent", "no answer"]
    : ["live", "live"];
  pill.dataset.state = name;
  setText(pill, text);
  drawNotices(state);
}

function drawNotices(state) {
  const notices = [];
  if (link === "lost") {
    notices.push({
      name: "gone", text: "The dashboard does not answer: what you see is no longer true.",
      command: "Start kvzmq dashboard again, and this page goes on by itself; where it asks for a token, open the address with the token again.",
    });
  } else if (state?.silence) {
    notices.push({
      name: "silent", text: `${state.url} has not answered since ${clock(state.silent_since_s)}: ${state.silence}`,
      command: "kvzmq ping --explain says why. This page goes on by itself when it answers again.",
    });
  }
  for (const finding of state?.findings ?? []) if (finding.name !== "silent") notices.push(finding);
  keyed(
    document.getElementById("notices"), notices, (notice) => `${notice.name} ${notice.command}`,
    () => el("div", { class: "notice" }, el("p", { class: "what" }), el("p", { class: "mend" })),
    (node, notice) => {
      node.dataset.name = notice.name;
      setText(node.children[0], notice.text);
      setText(node.children[1], notice.command);
    },
  );
}

startTheme(document.getElementById("theme"));
follow((kind, data) => {
  if (kind === "link") link = data;
  else points.take(kind, data);
  drawHeader();
  if (kind !== "link") shown?.draw?.(kind);
});
show(false);
