// Pictures, drawn by hand as SVG: each says in words what it shows, and colour is never alone.

import { h } from "./dom.js";
import { duration, number, plural, share, tick, exactly } from "./format.js";

const HEIGHT = 150;
const AXIS = 18; // below the bars
const SIDE = 44; // left of them

const nice = (most) => {
  const power = 10 ** Math.floor(Math.log10(Math.max(2, most)));
  return [1, 1.2, 1.6, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= most && step % 2 === 0);
};

const compact = (value) =>
  value >= 1e6 ? `${+(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : number(value);

const text = (x, y, anchor, words) => h("text", { x, y, "text-anchor": anchor, class: "tick" }, words);

/** Failures are hatched: they stand out without colour, too. Drawn once, for all pictures. */
export const patterns = () =>
  h("svg", { width: 0, height: 0, class: "only-read", "aria-hidden": "true", focusable: "false" },
    h("defs", {},
      h("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        h("rect", { width: 5, height: 5, class: "failed" }),
        h("rect", { width: 1.5, height: 5, class: "hatch" }))));

const FAILED = "url(#hatch)";

function frame(width, top, words, label, ...inner) {
  const height = HEIGHT - AXIS;
  const lines = [0, 0.5, 1].map((at) => {
    const y = Math.round(8 + (height - 8) * (1 - at)) + 0.5;
    return [
      h("line", { x1: SIDE, x2: width, y1: y, y2: y, class: at ? "grid" : "base" }),
      text(SIDE - 8, y + 4, "end", label(top * at)),
    ];
  });
  return h("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words },
    lines, inner);
}

/** What a reader points at, told in a line above the picture; the arrow keys point, too. */
function figure(name, summary, draw, legend) {
  const tell = (plot, words) => {
    const readout = plot.parentElement.querySelector(".readout");
    readout.ariaLive = plot.matches(":focus") ? "polite" : null;
    if (readout.textContent !== words) readout.replaceChildren(words);
  };
  const point = (plot, index) => {
    const bars = [...plot.querySelectorAll(".bar")];
    plot.$at = Math.min(index, bars.length - 1);
    bars.forEach((bar, place) => bar.classList.toggle("at", place === plot.$at));
    if (plot.$at < 0) tell(plot, summary);
    else bars[plot.$at].$on.pointerenter();
  };
  const onKey = (event) => {
    const plot = event.currentTarget;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = plot.querySelectorAll(".bar").length - 1;
    point(plot, Math.max(0, (plot.$at ?? -1) < 0 ? (step > 0 ? 0 : last) : plot.$at + step));
  };
  return h("figure", { class: "chart" },
    h("figcaption", {}, h("strong", {}, name), h("span", { class: "readout" }, summary)),
    h("div", {
      class: "plot", tabindex: "0", role: "group", "aria-label": `${name}: the arrow keys tell of each bar`,
      draw: (width, plot) => {
        if (plot.$at >= 0) queueMicrotask(() => point(plot, plot.$at)); // a new picture, and still the same bar
        return draw(width, (words) => tell(plot, words));
      },
      on: {
        pointerover: (event) => point(event.currentTarget, [...event.currentTarget.querySelectorAll(".bar")].indexOf(event.target.closest(".bar"))),
        pointerleave: (event) => point(event.currentTarget, -1),
        blur: (event) => point(event.currentTarget, -1),
        keydown: onKey,
      },
    }),
    legend);
}

const key = (kind, words) => h("span", { class: `key ${kind}` }, words);

/** How many ran, and how many of them failed, over time. */
export function throughput(buckets) {
  const rows = buckets.map((one) => ({
    at: new Date(one.start),
    total: one.total,
    failed: one.failure,
    open: one.pending + one.started + one.retry,
  }));
  const total = rows.reduce((sum, one) => sum + one.total, 0);
  const failed = rows.reduce((sum, one) => sum + one.failed, 0);
  const step = rows.length > 1 ? rows[1].at - rows[0].at : 3600e3;
  const top = nice(Math.max(0, ...rows.map((one) => one.total)));
  const summary = `${plural(total, "execution")}, ${number(failed)} failed`;
  const draw = (width, point) => {
    const wide = (width - SIDE) / Math.max(1, rows.length);
    const height = HEIGHT - AXIS - 8;
    const gap = wide > 6 ? 2 : wide > 3 ? 1 : 0;
    const high = (count) => (count ? Math.max(1.5, (count / top) * height) : 0);
    const bars = rows.map((one, index) => {
      const x = SIDE + index * wide;
      const all = high(one.total);
      const bad = Math.min(all, high(one.failed));
      const open = Math.min(all - bad, (one.open / top) * height);
      const base = height + 8;
      const words = `${exactly(one.at).replace(/\.000/, "")}: ${plural(one.total, "execution")}, ${number(one.failed)} failed`;
      const box = (from, size, style) =>
        size > 0 && h("rect", { x: x + gap / 2, width: Math.max(0.5, wide - gap), y: base - from - size, height: size, ...style });
      return h("g", { class: "bar", on: { pointerenter: () => point(words) } },
        h("rect", { x, y: 0, width: wide, height: base, class: "touch" }),
        box(bad + open, all - bad - open, { class: "done" }),
        box(bad, open, { class: "open" }),
        box(0, bad, { fill: FAILED }));
    });
    const marks = Math.max(1, Math.ceil(rows.length / Math.max(2, Math.floor(width / 110))));
    const ticks = rows.map((one, index) =>
      index % marks === 0 && SIDE + index * wide < width - 30
        ? text(SIDE + index * wide, HEIGHT - 3, "start", tick(one.at, step * marks))
        : null);
    return frame(width, top, `Throughput: ${summary}`, compact, bars, ticks);
  };
  const legend = h("p", { class: "legend" },
    key("done", "ended well or cancelled"), key("open", "not over yet"), key("failed", "failed"));
  return figure("Throughput", summary, draw, legend);
}

/** How long the runs took, by steps that grow. */
export function durations(stats) {
  const total = stats.durations.reduce((sum, one) => sum + one.count, 0);
  const first = stats.durations.findIndex((one) => one.count);
  const rows = stats.durations.slice(Math.max(0, first - 1)).map((one) => ({ count: one.count, from: one.above, to: one.up_to }));
  if (rows.at(-1)?.to) rows.push({ count: 0, from: rows.at(-1).to, to: null });
  const top = nice(Math.max(0, ...rows.map((one) => one.count)));
  const summary = `half within ${duration(stats.p50_duration)}, 95 % within ${duration(stats.p95_duration)}`;
  const draw = (width, point) => {
    const wide = (width - SIDE) / Math.max(1, rows.length);
    const height = HEIGHT - AXIS - 8;
    const bars = rows.map((one, index) => {
      const x = SIDE + index * wide;
      const size = one.count ? Math.max(1.5, (one.count / top) * height) : 0;
      const range = one.to ? `${duration(one.from)} to ${duration(one.to)}` : `over ${duration(one.from)}`;
      return h("g", { class: "bar", on: { pointerenter: () => point(`${range}: ${plural(one.count, "execution")}`) } },
        h("rect", { x, y: 0, width: wide, height: height + 8, class: "touch" }),
        h("rect", { x: x + 1, width: Math.max(1, wide - 2), y: height + 8 - size, height: size, class: "done" }));
    });
    const every = Math.ceil(rows.length / Math.max(2, Math.floor(width / 70)));
    const ticks = rows.map((one, index) =>
      one.to && index % every === 0 && index < rows.length - 1
        ? text(SIDE + (index + 1) * wide, HEIGHT - 3, "middle", duration(one.to).replace(/ 0 \S+$/, ""))
        : null);
    return frame(width, top, `Durations of ${plural(total, "execution")}: ${summary}`, compact, bars, ticks);
  };
  return figure("Durations", summary, draw,
    h("p", { class: "legend" }, plural(total, "execution"), " with a duration", stats.is_approximate && "; steps begin and end within 5 %"));
}

const SIGN = { SUCCESS: "done", FAILURE: "failed", REVOKED: "revoked", STARTED: "open", RETRY: "failed" };

/** When each attempt ran: waiting as a thin line, running as a bar. */
export function attempts(execution, rows) {
  const begun = new Date(execution.created_at).getTime();
  const ends = rows.flatMap((one) => [one.finished_at, one.started_at]).filter(Boolean);
  const now = execution.is_completed ? 0 : Date.now();
  const end = Math.max(now, ...ends.map((one) => new Date(one).getTime()), begun + 1);
  const span = end - begun;
  const line = 26;
  const height = rows.length * line + AXIS + 4;
  const words = rows
    .map((one) => `attempt ${one.attempt}, ${one.cause}: ${one.status.toLowerCase()}, ${duration(one.duration)}`)
    .join("; ");
  const draw = (width) => {
    const left = 34;
    const at = (time) => left + ((new Date(time).getTime() - begun) / span) * (width - left - 2);
    const bars = rows.map((one, index) => {
      const y = index * line + 4;
      const from = one.started_at ? at(one.started_at) : left;
      const to = one.finished_at ? at(one.finished_at) : Math.max(from, at(new Date(end)));
      const before = index ? rows[index - 1].finished_at : execution.created_at;
      const kind = SIGN[one.status] ?? "open";
      return h("g", {},
        text(0, y + 14, "start", `#${one.attempt}`),
        before && h("line", { x1: at(before), x2: from, y1: y + 9.5, y2: y + 9.5, class: "wait" }),
        h("rect", {
          x: Math.min(from, width - 5), y, width: Math.max(3, to - from), height: 18, rx: 3,
          ...(kind === "failed" ? { fill: FAILED } : { class: kind }),
        }, h("title", {}, `${one.status}, ${duration(one.duration)}`)));
    });
    const marks = [0, 0.5, 1].map((share_) =>
      text(left + share_ * (width - left - 2), height - 3, ["start", "middle", "end"][share_ * 2],
        share_ ? `+${duration((span * share_) / 1000)}` : "created"));
    return h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Attempts: ${words || "none yet"}` },
      bars, marks);
  };
  return h("div", { class: "plot", draw });
}

/** A share of a whole, as a bar with its words beside it. */
export function load(value, words, label) {
  const width = 90;
  return h("span", { class: "load" },
    h("svg", { width, height: 8, viewBox: `0 0 ${width} 8`, role: "img", "aria-label": `${label}: ${share(value)}` },
      h("rect", { width, height: 8, rx: 4, class: "rail" }),
      value > 0 && h("rect", { width: Math.max(3, Math.min(1, value) * width), height: 8, rx: 4, class: value >= 0.95 ? "full" : "done" })),
    h("span", {}, words));
}

/** Shares of failures in a task's runs, as one small bar. */
export function outcome(counts) {
  const width = 90;
  const total = Math.max(1, counts.total);
  const bad = counts.failure ? Math.max(2, (counts.failure / total) * width) : 0;
  const good = Math.min(width - bad, (counts.success / total) * width);
  return h("svg", {
    width, height: 8, viewBox: `0 0 ${width} 8`, role: "img",
    "aria-label": `${number(counts.success)} succeeded, ${number(counts.failure)} failed`,
  },
    h("rect", { width, height: 8, rx: 2, class: "rail" }),
    good > 0 && h("rect", { width: good, height: 8, rx: 2, class: "done" }),
    bad > 0 && h("rect", { x: width - bad, width: bad, height: 8, rx: 2, fill: FAILED }));
}
