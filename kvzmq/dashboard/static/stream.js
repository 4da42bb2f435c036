// What the server of this page sends as it happens, in every tab.

import { openSource } from "./source.js";

const HERE_MS = 4000;

/** Follow the figures; `take(kind, data)` gets hello, tick and link. */
export function follow(take) {
  if (typeof SharedWorker === "undefined") {
    let close = openSource(take);
    document.addEventListener("visibilitychange", () => {
      close();
      if (!document.hidden) close = openSource(take);
    });
    return;
  }
  const worker = new SharedWorker("/static/worker.js", { type: "module", name: "kvzmq" });
  const say = () => worker.port.postMessage(document.hidden ? "away" : "here");
  worker.port.addEventListener("message", ({ data: [kind, data] }) => take(kind, data));
  worker.port.start();
  document.addEventListener("visibilitychange", say);
  window.addEventListener("pagehide", () => worker.port.postMessage("away"));
  window.addEventListener("pageshow", say);
  setInterval(say, HERE_MS);
  say();
}

/** Ask for something; throws an Error with the server's words if it does not answer well. */
export async function ask(name, parameters = {}, options = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null));
  let response;
  try {
    response = await fetch(`/api/${name}?${query}`, options);
  } catch {
    throw new Error("the dashboard does not answer: was it stopped?");
  }
  const text = await response.text();
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error(text.trim() || `status ${response.status}`);
  }
  if (!response.ok) throw new Error(found.error ?? `status ${response.status}`);
  return found;
}

/** Call an asynchronous function again and again while the page is looked at; returns what ends that. */
export function repeat(every_ms, call) {
  let ended = false;
  let timer = 0;
  async function run() {
    if (!document.hidden) await call();
    if (!ended) timer = setTimeout(run, every_ms);
  }
  run();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}
