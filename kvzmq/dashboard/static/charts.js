// Charts over time: ECharts draws the lines; heading, legend and figures are text of the page.
//
// A chart is drawn while it is in sight, and all of them share one span of time.

import { el, keyed, setText } from "./dom.js";
import { bytes, clock } from "./format.js";
import { colour, isDark } from "./theme.js";

const HUES = 8;
const COARSE = window.matchMedia("(pointer: coarse)");
const SERIES_MAX = 7;

let library = null;

/** Load the library once: the page has its figures before. */
function load() {
  library ??= import("/charts/index.js").then((module) => module.echarts);
  return library;
}

export class Chart {
  /**
   * options: title, about (what is seen), format, lines ([{name, label}] or a function of the points that returns
   * them, the most important first), stacked, log (a logarithmic axis), whole (whole numbers alone)
   */
  constructor(points, view, options) {
    this.points = points;
    this.view = view;
    this.options = options;
    this.legend = el("dl", { class: "legend", data: { lines: String(options.stacked && typeof options.lines === "function" ? 6 : 4) } });
    this.canvas = el("div", { class: "plot", "aria-hidden": "true" });
    this.element = el(
      "section", { class: "panel chart", "aria-label": options.title },
      el("header", {}, el("h2", { text: options.title }), el("span", { class: "about", text: options.about ?? "" })),
      this.canvas, this.legend,
    );
    this.visible = false;
    this.drawn = null;
    this.chart = null;
    this.lines = [];
    this.observer = new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible) this.draw();
    }, { rootMargin: "100px" });
    this.observer.observe(this.element);
    this.resizing = new ResizeObserver(() => this.chart?.resize());
    this.resizing.observe(this.canvas);
    (window.requestIdleCallback ?? setTimeout)(() => this.start());
  }

  async start() {
    const echarts = await load();
    if (this.ended || this.chart) return;
    this.chart = echarts.init(this.canvas, null, { renderer: "canvas" });
    this.chart.group = "overview";
    echarts.connect("overview"); // for the line below the pointer; its figures are those of one chart
    this.canvas.addEventListener("pointerenter", () => { this.hovered = true; });
    this.canvas.addEventListener("pointerleave", () => { this.hovered = false; });
    this.restyle();
    this.chart.on("datazoom", (event) => {
      const { startValue, endValue } = event.batch?.[0] ?? event;
      if (startValue === undefined || !(endValue > startValue)) return;
      // The span is the page's: it sets the axes of all charts, and the chart's own zoom is taken back.
      this.chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 });
      this.view.zoom(startValue / 1000, endValue / 1000);
    });
    this.chart.getZr().on("dblclick", () => this.view.zoom(null, null));
  }

  /** Set all that does not change with the figures; after the colours have changed, too. */
  restyle() {
    if (!this.chart) return;
    const text = colour("text-dim");
    const format = this.options.format;
    this.chart.setOption({
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { left: 58, right: 10, top: 10, bottom: 22 },
      tooltip: {
        trigger: "axis", renderMode: "richText", confine: true, transitionDuration: 0,
        backgroundColor: colour("raised"), borderColor: colour("line"), borderWidth: 1, padding: 8,
        textStyle: { color: colour("text"), fontSize: 12 },
        axisPointer: { type: "line", lineStyle: { color: colour("text-dim"), width: 1, type: "solid" } },
        formatter: (found) => this.#tooltip(found),
      },
      xAxis: {
        type: "time", axisLine: { lineStyle: { color: colour("line") } }, axisTick: { show: false },
        splitLine: { show: false }, axisPointer: { snap: false },
        axisLabel: {
          color: text, fontSize: 11, hideOverlap: true, showMinLabel: false, showMaxLabel: false,
          formatter: (value) => clock(value / 1000).slice(0, this.view.seconds() > 240 ? 5 : 8),
        },
        splitNumber: 4,
      },
      yAxis: {
        ...(this.options.log ? { type: "log", logBase: 10 } : { type: "value", min: 0 }), splitNumber: 3, axisLine: { show: false }, axisTick: { show: false },
        minInterval: this.options.whole ? 1 : 0,
        axisLabel: { color: text, fontSize: 11, formatter: (value) => short(format(value)) },
        splitLine: { lineStyle: { color: colour("grid") } },
      },
      toolbox: { show: true, itemSize: 0, right: -100, feature: { dataZoom: { yAxisIndex: "none" } } },
    });
    if (!COARSE.matches) {  // a finger scrolls the page
      this.chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
    }
    this.drawn = null;
    this.draw();
  }

  draw() {
    const { lines } = this.options;
    this.lines = (typeof lines === "function" ? lines(this.points) : lines).slice(0, SERIES_MAX);
    this.#drawLegend();
    if (!this.chart) {
      if (this.visible) this.start();
      return;
    }
    if (!this.visible && this.drawn !== null) return;  // drawn once, so that it is there when it comes into sight
    const [from, to] = this.view.span();
    const { times, columns } = this.points.ring(this.view.reach());
    const begin = Math.max(0, lowerBound(times, from) - 1);
    const end = Math.min(times.length, lowerBound(times, to) + 1);
    const series = this.lines.map((line, at) => {
      const column = columns[line.name] ?? [];
      const data = [];
      for (let i = begin; i < end; i++) data.push([times[i] * 1000, (this.options.log ? column[i] || null : column[i]) ?? null]);
      const hue = colour(`hue-${line.hue ?? at % HUES}`);
      return {
        id: line.name, name: line.label, type: "line", data, showSymbol: false, symbol: "none", silent: true,
        color: hue, lineStyle: { width: this.options.stacked ? 1 : 1.6, color: hue },
        ...(this.options.stacked ? { stack: "all", areaStyle: { opacity: isDark() ? 0.35 : 0.28, color: hue } } : {}),
      };
    });
    series.push({ id: "marks", type: "line", data: [], silent: true, markLine: this.#marks(from, to) });
    const key = series.map((each) => each.id).join();
    this.chart.setOption(
      { xAxis: { min: from * 1000, max: to * 1000 }, yAxis: this.#scale(series), series },
      this.drawn === key ? { lazyUpdate: true } : { replaceMerge: ["series"] },
    );
    this.drawn = key;
  }

  #marks(from, to) {
    const seen = this.points.marks.filter((mark) => mark.time_s >= from && mark.time_s <= to);
    return {
      symbol: "none", silent: true, animation: false,
      label: { show: false },
      data: seen.map((mark) => ({
        xAxis: mark.time_s * 1000, name: mark.kind,
        lineStyle: { color: colour(mark.kind === "compaction" ? "mark" : "alarm"), type: "dashed", width: 1 },
      })),
    };
  }

  /** Sizes have round numbers of KiB or MiB on their axis; of anything else the library chooses. */
  #scale(series) {
    if (this.options.format !== bytes) return {};
    let most = 1024;
    for (const { data } of series) for (const [, value] of data) if (value > most) most = value;
    let unit = 1;
    while (unit * 1024 < most / 3) unit *= 1024;
    const interval = unit * [1, 2, 5, 10, 20, 50, 100, 200, 500, 1024].find((step) => step * unit >= most / 3.5);
    return { interval, max: Math.ceil((most * 1.02) / interval) * interval };
  }

  #tooltip(found) {
    if (!this.hovered) return "";
    const rows = found.filter((each) => each.seriesName && each.value?.[1] !== null && each.value?.[1] !== undefined);
    if (!rows.length) return "";
    const width = Math.max(...rows.map((each) => each.seriesName.length));
    const lines = rows.map((each) => `${each.seriesName.padEnd(width + 2)}${this.options.format(each.value[1])}`);
    const at = rows[0].value[0] / 1000;
    const near = this.view.seconds() / 100;
    const marks = this.points.marks.filter((mark) => Math.abs(mark.time_s - at) < near).map((mark) => mark.text.split(":")[0]);
    return [clock(at), ...lines, ...marks].join("\n");
  }

  #drawLegend() {
    keyed(
      this.legend, this.lines, (line) => line.name,
      () => el("div", {}, el("dt"), el("dd")),
      (node, line) => {
        node.dataset.hue = String(line.hue ?? this.lines.indexOf(line) % HUES);
        setText(node.children[0], line.label);
        setText(node.children[1], this.options.format(this.points.latest(line.name)));
      },
    );
  }

  end() {
    this.ended = true;
    this.observer.disconnect();
    this.resizing.disconnect();
    this.chart?.dispose();
    this.chart = null;
  }
}

/** 10k for 10.0k, 0 % for 0.00 %: a round number on an axis needs no places. */
function short(text) {
  return text.replace(/\.0+(?=\D|$)/, "").replace(/(\.\d*?)0+(?=\D|$)/, "$1");
}

function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
