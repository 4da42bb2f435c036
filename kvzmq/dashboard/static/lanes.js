// Lanes: how requests interleaved. A lane a client, a bar a request, a band a step; above them what executes, one after
// the other. Drawn on a canvas of our own: 2,000 bars with hover take 2 ms, a library would need an element for each.

import { el, setText } from "./dom.js";
import { moment, time, whole } from "./format.js";
import { ask } from "./stream.js";
import { colour, onTheme } from "./theme.js";

const LABEL = 118;
const RULER = 34;
const LANE = 28;
const HUES = 8;
const SPAN_US_MIN = 20;
const STEPS_FIRST = 6;

// The fields of a bar and of a step, as kvzmq/dashboard/lanes.py sends them.
const [LANE_OF, STEP, OPERATION, KEY, ARRIVED, BEGAN, ENDED, SYNCED, SENT, CHANGES, REVISION, ERROR] = [...Array(12).keys()];
const [NUMBER, STEP_BEGAN, STEP_ENDED, SYNC_BEGAN, SYNC_ENDED] = [...Array(5).keys()];

export function mount(root) {
  let picture = null;
  let from = 0;
  let to = 1;
  let chosen = -1;
  let ended = false;
  let uploaded = null;
  let following = 0;

  const seconds = el("select", { id: "seconds", "aria-label": "How long" },
    ...[["0.2", "0.2 s"], ["1", "1 s"], ["5", "5 s"]].map(([value, text]) => el("option", { value, text })));
  const take = el("button", { type: "button", id: "take", text: "Take a sample", on: { click: sample } });
  const follow = el("button", { type: "button", text: "Again and again", "aria-pressed": "false", on: { click: toggleFollow } });
  const file = el("input", { type: "file", id: "file", class: "hidden", tabindex: "-1", on: { change: upload } });
  const open = el("button", { type: "button", text: "Open a trace", on: { click: () => file.click() } });
  const served = el("button", { type: "button", text: "Trace of --trace", hidden: true, on: { click: () => serve(null) } });
  const step = el("input", { id: "step", inputmode: "numeric", placeholder: "Step", "aria-label": "Go to step", size: "8",
                             on: { keydown: (event) => { if (event.key === "Enter") goTo(); } } });
  const note = el("p", { class: "facts", role: "status" });
  const canvas = el("canvas", { class: "lanes-canvas", tabindex: "0", role: "img", "aria-label": "Lanes; arrow keys choose a request, + and - zoom",
                                on: { pointermove: onMove, pointerleave: onLeave, pointerdown: onDown, keydown: onKey } });
  const tip = el("div", { class: "tip", hidden: true, role: "tooltip" });
  const zoom = el("div", { class: "choice", role: "group", "aria-label": "Zoom" },
    ...[["←", "Earlier", () => pan(-0.5)], ["→", "Later", () => pan(0.5)], ["−", "Zoom out", () => scale(2)],
        ["+", "Zoom in", () => scale(0.5)], ["All", "Show all", () => span(0, end())]]
      .map(([text, label, click]) => el("button", { type: "button", text, "aria-label": label, title: label, on: { click } })));
  const facts = el("dl", { class: "tiles facts-tiles" });
  const detail = el("div", { class: "panel detail-line", "aria-live": "polite" });
  const stage = el("div", { class: "panel stage" }, canvas, tip);
  const legend = el("p", { class: "hint lanes-legend" },
    el("span", {}, el("i", { class: "swatch wait" }), "waits"), el("span", {}, el("i", { class: "swatch run" }), "executes"),
    el("span", {}, el("i", { class: "swatch sync" }), "waits for its step to end"),
    el("span", {}, el("i", { class: "swatch disk" }), "the disk syncs"), el("span", {}, el("i", { class: "swatch band" }), "a step"));

  root.append(
    el("h1", { class: "hidden", text: "Lanes" }),
    el("div", { class: "bar first" }, take, seconds, follow, open, file, served, zoom, step, note),
    facts, stage, legend, detail,
  );
  const context = canvas.getContext("2d");
  const observer = new ResizeObserver(draw);
  observer.observe(stage);
  const unstyle = onTheme(draw);

  // ---- where pictures come from

  async function sample() {
    take.disabled = true;
    setText(note, "the server tells of its requests …");
    await show(() => ask("lanes", { seconds: seconds.value }));
    take.disabled = false;
  }

  function toggleFollow() {
    following = following ? 0 : 1;
    follow.setAttribute("aria-pressed", String(Boolean(following)));
    const turn = async () => {
      if (!following || ended) return;
      if (!document.hidden) await sample();
      setTimeout(turn, 1000);
    };
    turn();
  }

  async function upload() {
    uploaded = file.files[0] ?? null;
    file.value = "";
    if (uploaded) await post(null);
  }

  const post = (first) => show(() => ask("trace", { name: uploaded.name, step: first }, { method: "POST", body: uploaded }));
  const serve = (first) => {
    uploaded = null;
    return show(() => ask("trace", { step: first }));
  };

  async function goTo() {
    const number = step.value.replace(/\D/g, "");
    if (!number || !picture) return;
    const at = picture.steps.find((each) => each[NUMBER] >= Number(number));
    const within = at && picture.steps[0][NUMBER] <= Number(number);
    if (!within && picture.source !== "live") await (uploaded ? post(number) : serve(number));
    else if (at) span(at[STEP_BEGAN] - 20, at[STEP_BEGAN] - 20 + (to - from));
  }

  async function show(load) {
    try {
      const found = await load();
      if (ended) return;
      picture = found;
      chosen = -1;
      setText(note, picture.source === "live" ? moment(picture.taken_s) : `${picture.source}${picture.more ? ", its first part" : ""}`);
      first();
    } catch (error) {
      setText(note, error.message);
    }
    draw();
  }

  const end = () => Math.max(1, ...picture.steps.map((each) => each[STEP_ENDED]), ...picture.bars.map((bar) => bar[SENT] ?? bar[ENDED]));

  /** Begin where most requests are answered in STEPS_FIRST steps, for the time that takes. */
  function first() {
    const bars = new Map();
    for (const bar of picture.bars) bars.set(bar[STEP], (bars.get(bar[STEP]) ?? 0) + 1);
    let best = 0;
    let most = -1;
    const last = (at) => picture.steps[Math.min(picture.steps.length, at + STEPS_FIRST) - 1];
    picture.steps.forEach((each, at) => {
      const count = picture.steps.slice(at, at + STEPS_FIRST).reduce((sum, { [NUMBER]: number }) => sum + (bars.get(number) ?? 0), 0);
      const rate = (count * count) / Math.max(1, last(at)[STEP_ENDED] - each[STEP_BEGAN]);
      if (rate > most) [best, most] = [at, rate];
    });
    if (!picture.steps.length) {
      span(0, 1000);
      return;
    }
    const begin = picture.steps[best][STEP_BEGAN];
    const length = last(best)[STEP_ENDED] - begin;
    span(begin - length * 0.02, begin + length * 1.02);
  }

  // ---- moving

  function span(begin, finish) {
    const length = Math.max(SPAN_US_MIN, finish - begin);
    from = begin;
    to = begin + length;
    draw();
  }

  const pan = (share) => picture && span(from + (to - from) * share, to + (to - from) * share);

  function scale(factor, around = (from + to) / 2) {
    if (picture) span(around - (around - from) * factor, around + (to - around) * factor);
  }

  let dragged = null;

  function onDown(event) {
    if (!picture) return;
    dragged = { x: event.clientX, from, to, far: false };
    canvas.setPointerCapture(event.pointerId);
    const up = () => {
      canvas.removeEventListener("pointerup", up);
      if (dragged && !dragged.far) choose(hit(event));
      dragged = null;
    };
    canvas.addEventListener("pointerup", up);
  }

  function onMove(event) {
    if (!picture) return;
    if (dragged) {
      const moved = event.clientX - dragged.x;
      if (Math.abs(moved) > 4) dragged.far = true;
      const shift = (moved / (canvas.clientWidth - LABEL)) * (dragged.to - dragged.from);
      if (dragged.far) span(dragged.from - shift, dragged.to - shift);
      return;
    }
    const at = hit(event);
    if (at < 0) {
      onLeave();
      return;
    }
    tip.replaceChildren(...told(picture.bars[at]));
    tip.hidden = false;
    const box = stage.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY - box.top + 18}px`;
  }

  function onLeave() {
    tip.hidden = true;
  }

  canvas.addEventListener("wheel", (event) => {
    if (!picture || !(event.ctrlKey || event.metaKey || event.shiftKey || event.deltaX)) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      const around = from + ((event.clientX - box.left - LABEL) / (box.width - LABEL)) * (to - from);
      scale(event.deltaY > 0 ? 1.25 : 0.8, around);
    } else pan((event.deltaX || event.deltaY) / 800);
  }, { passive: false });

  function onKey(event) {
    if (!picture) return;
    const act = {
      ArrowRight: () => choose(Math.min(picture.bars.length - 1, chosen < 0 ? firstSeen() : chosen + 1), true),
      ArrowLeft: () => choose(Math.max(0, chosen < 0 ? firstSeen() : chosen - 1), true),
      "+": () => scale(0.5), "=": () => scale(0.5), "-": () => scale(2), 0: () => span(0, end()),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  const firstSeen = () => Math.max(0, picture.bars.findIndex((bar) => bar[BEGAN] >= from));

  function choose(at, reveal = false) {
    chosen = at;
    const bar = picture.bars[at];
    if (reveal && bar && (bar[BEGAN] < from || bar[ENDED] > to)) pan((bar[BEGAN] - from) / (to - from) - 0.3);
    drawDetail();
    draw();
  }

  // ---- drawing

  const x = (us, width) => LABEL + ((us - from) / (to - from)) * (width - LABEL - 12);
  const y = (lane) => RULER + LANE + 10 + lane * LANE;
  const hue = (lane) => colour(`hue-${lane % HUES}`);

  function draw() {
    drawFacts();
    const lanes = picture?.lanes.length ?? 0;
    const width = stage.clientWidth;
    const height = Math.max(260, y(lanes) + 12);
    const ratio = devicePixelRatio;
    canvas.style.height = `${height}px`;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const ink = context;
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, width, height);
    const font = getComputedStyle(document.body).fontFamily;
    ink.font = `12px ${font}`;
    ink.textBaseline = "middle";
    if (!picture || !picture.bars.length) {
      ink.fillStyle = colour("text-dim");
      ink.textAlign = "center";
      ink.fillText(picture ? "No requests in that time." : "Take a sample of what the server does now, or open a trace.", width / 2, height / 2);
      return;
    }
    const bottom = y(lanes) + 2;
    ink.save();
    ink.beginPath();
    ink.rect(LABEL, 0, width - LABEL, height);
    ink.clip();
    drawSteps(ink, width, bottom);
    ink.textAlign = "left";
    picture.bars.forEach((bar, at) => drawBar(ink, bar, at, width));
    ink.restore();
    ink.textAlign = "right";
    ink.fillStyle = colour("text-dim");
    ink.fillText("executes", LABEL - 12, RULER + LANE / 2);
    ink.fillText(`${time((to - from) / 1e6)} across`, LABEL - 12, 18);
    ink.strokeStyle = colour("line");
    ink.beginPath();
    ink.moveTo(0, RULER + LANE + 5.5);
    ink.lineTo(width, RULER + LANE + 5.5);
    ink.stroke();
    picture.lanes.forEach((name, lane) => {
      ink.fillStyle = hue(lane);
      ink.fillRect(LABEL - 8, y(lane) + 6, 3, LANE - 12);
      ink.fillStyle = colour("text");
      ink.fillText(name.length > 15 ? `…${name.slice(-14)}` : name, LABEL - 14, y(lane) + LANE / 2);
    });
  }

  function drawSteps(ink, width, bottom) {
    ink.textAlign = "left";
    let free = LABEL;
    picture.steps.forEach((each, at) => {
      if (each[STEP_ENDED] < from || each[STEP_BEGAN] > to) return;
      const left = x(each[STEP_BEGAN], width);
      const right = Math.max(left + 1, x(each[STEP_ENDED], width));
      ink.fillStyle = colour(at % 2 ? "sunk" : "band");
      ink.fillRect(left, RULER - 6, right - left, bottom - RULER + 6);
      if (each[SYNC_BEGAN] !== null) {
        ink.fillStyle = colour("disk");
        const begin = x(each[SYNC_BEGAN], width);
        ink.fillRect(begin, RULER - 6, Math.max(1, x(each[SYNC_ENDED], width) - begin), bottom - RULER + 6);
      }
      const text = `step ${whole(each[NUMBER])}`;
      if (left >= free - 1 || left < LABEL) {
        const at_x = Math.max(left, LABEL) + 2;
        if (at_x >= free) {
          ink.fillStyle = colour("text-dim");
          ink.fillText(text, at_x, 18);
          free = at_x + ink.measureText(text).width + 12;
        }
      }
    });
  }

  function drawBar(ink, bar, at, width) {
    const last = bar[SENT] ?? bar[ENDED];
    const begin = bar[ARRIVED] ?? bar[BEGAN];
    if (last < from || begin > to) return;
    const top = y(bar[LANE_OF]) + 5;
    const height = LANE - 10;
    const [left, began, finished] = [begin, bar[BEGAN], bar[ENDED]].map((us) => x(us, width));
    const full = hue(bar[LANE_OF]);
    const isWrite = bar[CHANGES] > 0;
    if (bar[ARRIVED] !== null) {
      ink.fillStyle = full;
      ink.globalAlpha = 0.22;
      ink.fillRect(left, top + 4, Math.max(0, began - left), height - 8);
      ink.globalAlpha = 0.45;
      const synced = x(bar[SYNCED], width);
      ink.fillRect(finished, top + height / 2 - 1, Math.max(0, synced - finished), 2);
      const sent = x(bar[SENT], width);
      ink.fillRect(synced, top + height / 2 - 1, Math.max(0, sent - synced), 2);
      ink.globalAlpha = 1;
      ink.fillRect(sent - 1, top + height / 2 - 3, 2, 6);
    }
    ink.globalAlpha = 1;
    ink.fillStyle = bar[ERROR] ? colour("alarm") : full;
    const thick = Math.max(1.2, finished - began);
    ink.fillRect(began, top, thick, height);
    ink.globalAlpha = isWrite ? 1 : 0.55;
    ink.fillRect(began, RULER + 4, thick, LANE - 8);
    ink.globalAlpha = 1;
    if (at === chosen) {
      ink.strokeStyle = colour("text");
      ink.lineWidth = 1.5;
      ink.strokeRect(Math.min(left, began) - 1.5, top - 2, Math.max(x(last, width) - left, thick) + 3, height + 4);
      ink.lineWidth = 1;
    }
    if (thick > 40) {
      ink.fillStyle = colour("raised");
      ink.fillText(bar[OPERATION], began + 4, top + height / 2 + 0.5, thick - 6);
    }
  }

  /** The bar below the pointer: the one whose execution is nearest, in its lane. */
  function hit(event) {
    const box = canvas.getBoundingClientRect();
    const us = from + ((event.clientX - box.left - LABEL) / (box.width - LABEL - 12)) * (to - from);
    const lane = Math.floor((event.clientY - box.top - y(0)) / LANE);
    const above = event.clientY - box.top >= RULER && event.clientY - box.top < RULER + LANE;
    const slack = ((to - from) / box.width) * 4;
    let best = -1;
    let distance = Infinity;
    picture.bars.forEach((bar, at) => {
      if (!above && bar[LANE_OF] !== lane) return;
      const begin = above ? bar[BEGAN] : (bar[ARRIVED] ?? bar[BEGAN]);
      const finish = above ? bar[ENDED] : (bar[SENT] ?? bar[ENDED]);
      if (us < begin - slack || us > finish + slack) return;
      const away = us < bar[BEGAN] ? bar[BEGAN] - us : us > bar[ENDED] ? us - bar[ENDED] : 0;
      if (away < distance) [best, distance] = [at, away];
    });
    return best;
  }

  // ---- in words

  function told(bar) {
    const duration = (a, b) => (a === null || b === null ? "–" : time(Math.max(0, b - a) / 1e6));
    const pairs = [
      ["client", picture.lanes[bar[LANE_OF]]], ["step", whole(bar[STEP])],
      ["waited", bar[ARRIVED] === null ? null : duration(bar[ARRIVED], bar[BEGAN])],
      ["executed", duration(bar[BEGAN], bar[ENDED])],
      ["synced", bar[SYNCED] === null ? null : duration(bar[ENDED], bar[SYNCED])],
      ["sent", bar[SENT] === null ? null : duration(bar[SYNCED], bar[SENT])],
      ["revision", `${whole(bar[REVISION])}${bar[CHANGES] ? `, ${whole(bar[CHANGES])} its own` : ""}`],
      ["answered", bar[ERROR] || "well"],
    ];
    return [
      el("p", { class: "mono head", text: bar[KEY] === null ? bar[OPERATION] : `${bar[OPERATION]}  ${bar[KEY]}` }),
      el("dl", {}, ...pairs.filter(([, value]) => value !== null).map(([name, value]) =>
        el("div", {}, el("dt", { text: name }), el("dd", { text: value })))),
    ];
  }

  function drawDetail() {
    if (chosen >= 0 && picture?.bars[chosen]) detail.replaceChildren(...told(picture.bars[chosen]));
    else detail.replaceChildren(el("p", { class: "dim", text: "Point at a bar, or choose one with a click or the arrow keys, to see the request." }));
  }

  function drawFacts() {
    const pairs = picture
      ? [["Requests", whole(picture.bars.length)], ["Clients", whole(picture.lanes.length)], ["Steps", whole(picture.steps.length)],
         ["Shared steps", picture.steps.length ? `${Math.round((100 * picture.shared_steps) / picture.steps.length)} %` : "–"],
         ["Each executed alone", picture.bars.length ? (picture.fault ? "no" : "yes") : "–"], ["Not told of", whole(picture.dropped)]]
      : [["Requests", "–"], ["Clients", "–"], ["Steps", "–"], ["Shared steps", "–"], ["Each executed alone", "–"], ["Not told of", "–"]];
    if (facts.childElementCount !== pairs.length) {
      facts.replaceChildren(...pairs.map(() => el("div", { class: "tile" }, el("dt", { class: "label" }), el("dd", { class: "value" }))));
    }
    pairs.forEach(([name, value], at) => {
      setText(facts.children[at].children[0], name);
      setText(facts.children[at].children[1], value);
      facts.children[at].title = name === "Each executed alone" ? (picture?.fault ?? "") : "";
      facts.children[at].classList.toggle("warn", name === "Each executed alone" && Boolean(picture?.fault));
    });
  }

  drawDetail();
  draw();
  ask("trace", { about: "1" }).then((found) => { served.hidden = !found.served; if (found.served) setText(served, `Trace ${found.served}`); }, () => {});
  return {
    end() {
      ended = true;
      following = 0;
      observer.disconnect();
      unstyle();
    },
  };
}
