// Overview: how fast, how long, how much, and since when.

import { Chart } from "./charts.js";
import { el, setText, svg } from "./dom.js";
import { bytes, clock, count, percent, span, time, whole } from "./format.js";
import { onTheme } from "./theme.js";

const SPANS = [[60, "1 min"], [300, "5 min"], [900, "15 min"], [3600, "1 h"]];
const OWN = new Set(["stats", "clients", "hello", "ping", "heartbeat", "watch_heartbeat"]);

/** The operations of a kind that are called most, each with the colour that it keeps. */
function operations(...prefixes) {
  const hues = new Map();
  return (points) => {
    const found = [];
    for (const prefix of prefixes) {
      for (const name of points.names(prefix)) {
        const column = points.rings.fine.columns[name];
        const recent = column.slice(-60).reduce((sum, value) => sum + (value ?? 0), 0);
        const long = (points.rings.coarse.columns[name] ?? []).reduce((sum, value) => sum + (value ?? 0), 0);
        const label = name.slice(prefix.length);
        if (recent + long > 0) found.push({ name, label, weight: (recent + long) * (OWN.has(label) ? 1e-9 : 1) });
      }
    }
    found.sort((a, b) => b.weight - a.weight);
    const lines = found.slice(0, 6);
    for (const line of lines) {
      if (!hues.has(line.name)) hues.set(line.name, hues.size % 8);
      line.hue = hues.get(line.name);
    }
    return lines.sort((a, b) => a.hue - b.hue);
  };
}

const lines = (...pairs) => pairs.map(([name, label]) => ({ name, label }));

const CHARTS = [
  { title: "Requests", about: "operations a second", format: count, stacked: true,
    lines: operations("reads.", "writes.") },
  { title: "Changes", about: "writing operations a second", format: count, stacked: true, lines: operations("writes.") },
  { title: "Latency", about: "from the poll to the reply, logarithmic", format: time, log: true,
    lines: lines(["latency.p50", "p50"], ["latency.p99", "p99"]) },
  { title: "Step", about: "time of a step, on average", format: time, stacked: true,
    lines: lines(["step.receive", "receive"], ["step.execute", "execute"], ["step.commit", "sync"], ["step.send", "send"]) },
  { title: "Group commit", about: "changes a sync, requests a step", format: count,
    lines: lines(["changes_per_sync", "changes/sync"], ["requests_per_step", "requests/step"]) },
  { title: "Sync", about: "waiting for the log, logarithmic", format: time, log: true,
    lines: lines(["sync.p50", "p50"], ["sync.p99", "p99"], ["append.p99", "append p99"]) },
  { title: "Steps", about: "of the loop, and syncs, a second", format: count,
    lines: lines(["steps", "steps"], ["syncs", "syncs"]) },
  { title: "Processor", about: "of one core", format: percent, lines: lines(["cpu", "server"]) },
  { title: "Memory", about: "", format: bytes,
    lines: lines(["memory.resident", "process"], ["memory.rows", "rows"], ["memory.history", "history"],
                 ["memory.sessions", "sessions"], ["memory.indexes", "indexes"]) },
  { title: "Log and checkpoint", about: "dashed: a compaction", format: bytes,
    lines: lines(["disk.log", "log"], ["disk.checkpoint", "checkpoint"]) },
  { title: "Rows", about: "", format: whole, whole: true, lines: lines(["keys", "rows"]) },
  { title: "Connections", about: "", format: whole, whole: true,
    lines: lines(["clients", "clients"], ["watches", "watches"], ["waiting", "requests waiting"]) },
];

const TILES = [
  { id: "requests", label: "Requests", unit: "/s", column: "requests", format: count },
  { id: "changes", label: "Changes", unit: "/s", column: "changes", format: count },
  { id: "latency", label: "Latency p99", unit: "", column: "latency.p99", format: time },
  { id: "sync", label: "Sync p99", unit: "", column: "sync.p99", format: time },
  { id: "keys", label: "Rows", unit: "", column: "keys", stat: "keys", format: whole },
  { id: "revision", label: "Revision", unit: "", column: "changes", stat: "revision", format: whole },
  { id: "clients", label: "Clients", unit: "", column: "clients", stat: "clients", format: whole },
  { id: "memory", label: "Memory", unit: "", column: "memory.resident", stat: "resident_bytes", format: bytes },
];

const SPARK_POINTS = 60;
const DRAW_MS_MIN = 900;
const DRAW_PAUSE = 12;

class Tile {
  constructor(tile) {
    this.tile = tile;
    this.value = el("span", { class: "value", id: `tile-${tile.id}`, text: "–" });
    this.path = svg("path");
    this.element = el(
      "div", { class: "tile" }, el("span", { class: "label", text: tile.label }),
      el("span", { class: "figure" }, this.value, el("span", { class: "unit", text: tile.unit })),
      svg("svg", { class: "spark", viewBox: "0 0 60 16", preserveAspectRatio: "none", "aria-hidden": "true" }, this.path),
    );
  }

  draw(points) {
    const { stat, column, format } = this.tile;
    const found = stat ? points.state.stats[stat] : points.latest(column);
    setText(this.value, points.state.silence ? "–" : format(found));
    const values = (points.rings.fine.columns[column] ?? []).slice(-SPARK_POINTS);
    const most = Math.max(...values.map((value) => value ?? 0), 1e-12);
    const least = stat && column !== "changes" ? Math.min(...values.filter((value) => value !== null)) : 0;
    let path = "";
    let pen = "M";
    values.forEach((value, at) => {
      if (value === null) pen = "M";
      else {
        const height = most > least ? (value - least) / (most - least) : 0.5;
        path += `${pen}${at + SPARK_POINTS - values.length} ${(15 - 14 * height).toFixed(1)}`;
        pen = "L";
      }
    });
    this.path.setAttribute("d", path);
  }
}

/** Draws at most once a second, and less often where that takes the browser long: many tabs on a busy machine. */
class Pace {
  constructor(draw) {
    this.draw = draw;
    this.next = 0;
    this.waiting = false;
  }

  ask(atOnce) {
    if (this.waiting || (!atOnce && performance.now() < this.next)) return;
    this.waiting = true;
    const asked = performance.now();
    requestAnimationFrame(() => {
      if (this.ended) return;
      this.draw();
      requestAnimationFrame(() => {
        const took = performance.now() - asked; // two frames and the drawing: 40 ms where nothing is in the way
        this.waiting = false;
        this.next = asked + Math.max(DRAW_MS_MIN, took * DRAW_PAUSE);
      });
    });
  }

  end() {
    this.ended = true;
  }
}

export function mount(root, { points }) {
  let length = 300;
  let hasChosen = false;
  let fixed = null; // [from, to] while zoomed or paused
  let paused = false;
  const newest = () => points.state?.now_s ?? Date.now() / 1000;
  const view = {
    span: () => fixed ?? [newest() - length, newest()],
    seconds: () => view.span()[1] - view.span()[0],
    reach: () => newest() - view.span()[0] - 1,
    zoom(from, to) {
      fixed = from === null ? (paused ? [newest() - length, newest()] : null) : [from, to];
      drawAll();
    },
  };

  const tiles = TILES.map((tile) => new Tile(tile));
  const charts = CHARTS.map((options) => new Chart(points, view, options));
  const buttons = SPANS.map(([seconds, label]) =>
    el("button", { type: "button", text: label, "aria-pressed": "false", on: { click: () => choose(seconds) } }));
  const pause = el("button", { type: "button", id: "pause", text: "Pause", "aria-pressed": "false", title: "Space; arrow keys move, + and - zoom",
                               on: { click: toggle } });
  const reset = el("button", { type: "button", id: "reset", text: "Reset zoom", disabled: true, title: "Escape",
                               on: { click: () => view.zoom(null, null) } });
  const facts = el("p", { class: "facts" });

  root.append(
    el("h1", { class: "hidden", text: "Overview" }),
    el("div", { class: "tiles" }, ...tiles.map((tile) => tile.element)),
    el("div", { class: "bar" },
      el("div", { class: "choice", role: "group", "aria-label": "Span of time" }, ...buttons), pause, reset, facts),
    el("div", { class: "charts" }, ...charts.map((chart) => chart.element)),
  );

  function choose(seconds) {
    length = seconds;
    hasChosen = true;
    fixed = paused ? [newest() - length, newest()] : null;
    drawAll();
  }

  function toggle() {
    paused = !paused;
    fixed = paused ? view.span() : null;
    drawAll();
  }

  function onKey(event) {
    if (event.target.closest("button, input, a, textarea")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [from, to] = view.span();
    const length_now = to - from;
    const act = {
      " ": toggle,
      Escape: () => view.zoom(null, null),
      "+": () => view.zoom(from + length_now / 4, to - length_now / 4),
      "=": () => view.zoom(from + length_now / 4, to - length_now / 4),
      "-": () => view.zoom(from - length_now / 2, Math.min(to + length_now / 2, newest())),
      ArrowLeft: () => view.zoom(from - length_now / 4, to - length_now / 4),
      ArrowRight: () => view.zoom(from + length_now / 4, to + length_now / 4),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  document.addEventListener("keydown", onKey);

  function drawFacts() {
    const { stats, silence } = points.state;
    if (stats.pid === undefined) return;
    const parts = [`kvzmq ${stats.version}`, `process ${stats.pid}`];
    if (!silence) parts.push(`up ${span(stats.uptime_s)}`);
    if (stats.lineage) parts.push(`lineage ${stats.lineage.slice(0, 8)}`);
    if (!silence && points.state.findings.length === 0) parts.push("no alarms");
    const mark = points.marks.at(-1);
    if (mark) parts.push(`${clock(mark.time_s)} ${mark.text.split(":")[0]}`);
    setText(facts, parts.join("  ·  "));
  }

  function drawAll(kind) {
    const kept = points.rings.fine.times;
    if (!hasChosen && kept.length) length = kept.at(-1) - kept[0] < 90 ? 60 : 300; // a young dashboard fills its charts
    buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(SPANS[at][0] === length)));
    pause.setAttribute("aria-pressed", String(paused));
    setText(pause, paused ? "Continue" : "Pause");
    reset.disabled = fixed === null || (paused && Math.abs(view.seconds() - length) < 1);
    if (!points.state) return;
    for (const tile of tiles) tile.draw(points);
    drawFacts();
    pace.ask(kind !== "tick");
  }

  const pace = new Pace(() => charts.forEach((chart) => chart.draw()));
  const unstyle = onTheme(() => charts.forEach((chart) => chart.restyle()));
  drawAll();
  return {
    draw: drawAll,
    end() {
      pace.end();
      unstyle();
      document.removeEventListener("keydown", onKey);
      for (const chart of charts) chart.end();
    },
  };
}
