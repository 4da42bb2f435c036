// The figures over time that the dashboard has kept, as this page has them: two resolutions, and marks.

const MARKS_MAX = 200;

export class Points {
  constructor() {
    this.rings = { fine: empty(), coarse: empty() };
    this.marks = [];
    this.state = null;
    this.every = { fine: 0.5, coarse: 5 };
    this.max = { fine: 600, coarse: 720 };
  }

  /** Take in what a stream sends: `hello` replaces everything, `tick` goes on. */
  take(kind, data) {
    if (kind === "hello") {
      this.rings = { fine: data.fine, coarse: data.coarse };
      this.marks = data.marks;
      this.max = data.points_max;
      this.every = data.every_s;
    } else {
      append(this.rings.fine, data.fine, this.max.fine);
      if (data.coarse) append(this.rings.coarse, data.coarse, this.max.coarse);
      this.marks = [...this.marks, ...data.marks].slice(-MARKS_MAX);
    }
    this.state = data.state;
  }

  /** What a stream would send as `hello` now. */
  hello() {
    const { fine, coarse } = this.rings;
    return { fine, coarse, marks: this.marks, points_max: this.max, every_s: this.every, state: this.state };
  }

  /** The ring that reaches back a number of seconds. */
  ring(seconds) {
    return seconds <= this.every.fine * this.max.fine ? this.rings.fine : this.rings.coarse;
  }

  latest(name) {
    const column = this.rings.fine.columns[name];
    return column && column.length ? column[column.length - 1] : null;
  }

  names(prefix) {
    return Object.keys(this.rings.fine.columns).filter((name) => name.startsWith(prefix));
  }
}

function empty() {
  return { first: 1, times: [], columns: {} };
}

function append(ring, more, max) {
  const before = ring.times.length;
  ring.times.push(...more.times);
  for (const [name, values] of Object.entries(more.columns)) {
    const column = ring.columns[name] ?? (ring.columns[name] = new Array(before).fill(null));
    column.push(...values);
  }
  const over = ring.times.length - max;
  for (const column of Object.values(ring.columns)) {
    while (column.length < ring.times.length) column.push(null);
    if (over > 0) column.splice(0, over);
  }
  if (over > 0) ring.times.splice(0, over);
}
