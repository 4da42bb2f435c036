// Figures as people read them, always of about the same width.

const GROUPED = new Intl.NumberFormat("en");

/** 1,234,567 */
export function whole(number) {
  return number === null || number === undefined ? "–" : GROUPED.format(Math.round(number));
}

/** 0.42, 7.3, 153, 4,820, 12.4k, 1.35M */
export function count(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1e9) return `${digits(number / 1e9)}G`;
  if (number >= 1e6) return `${digits(number / 1e6)}M`;
  if (number >= 1e4) return `${digits(number / 1e3)}k`;
  if (number >= 100) return GROUPED.format(Math.round(number));
  return number === 0 ? "0" : digits(number);
}

/** 500 ns, 85 µs, 1.24 ms, 2.50 s */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 1e-6) return `${digits(seconds * 1e9)} ns`;
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  return `${digits(seconds)} s`;
}

/** 512 B, 1.21 MiB */
export function bytes(number) {
  if (number === null || number === undefined) return "–";
  let amount = number;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (amount < 1024 || unit === "GiB") return unit === "B" ? `${Math.round(amount)} B` : `${digits(amount)} ${unit}`;
    amount /= 1024;
  }
  return "";
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${digits(share * 100)} %`;
}

/** 42 s, 3 min 20 s, 2 h 4 min, 3 d 7 h */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  for (let at = 0; at < 3; at++) {
    const [unit, size] = units[at];
    if (seconds >= size) {
      const [part, partSize] = units[at + 1];
      const rest = Math.floor((seconds % size) / partSize);
      return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${part}` : ""}`;
    }
  }
  return `${Math.floor(seconds)} s`;
}

/** 14:03:07, of a time in seconds since 1970. */
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** 2026-11-26 14:03:07.123 */
export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${clock(seconds)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

function digits(number) {
  if (number >= 99.95) return number.toFixed(0);
  if (number >= 9.995) return number.toFixed(1);
  return number.toFixed(2);
}
