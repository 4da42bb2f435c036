// One event stream for all tabs: a browser has six connections to a host, and each tab would keep one of them.
//
// A tab says every few seconds that it looks. The stream is open while at least one does; a tab that has been closed or
// hidden is forgotten when it has said nothing for a while.

import { Points } from "./points.js";
import { openSource } from "./source.js";

const FORGOTTEN_MS = 15000;

const tabs = new Map();
let points = new Points();
let link = "wait";
let close = null;

function take(kind, data) {
  if (kind === "link") link = data;
  else points.take(kind, data);
  for (const port of tabs.keys()) port.postMessage([kind, data]);
}

function tidy() {
  const now = Date.now();
  for (const [port, seen] of tabs) if (now - seen > FORGOTTEN_MS) tabs.delete(port);
  if (tabs.size && !close) close = openSource(take);
  else if (!tabs.size && close) {
    close();
    close = null;
    points = new Points();
    link = "wait";
  }
}

self.addEventListener("connect", (event) => {
  const port = event.ports[0];
  port.addEventListener("message", ({ data }) => {
    if (data === "away") tabs.delete(port);
    else {
      const isNew = !tabs.has(port);
      tabs.set(port, Date.now());
      if (isNew && points.state) {
        port.postMessage(["link", link]);
        port.postMessage(["hello", points.hello()]);
      }
    }
    tidy();
  });
  port.start();
});

setInterval(tidy, 5000);
