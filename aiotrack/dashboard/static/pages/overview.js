// How it goes: throughput, failures, durations, what runs now, and what somebody should look at.

import { get, save } from "../api.js";
import { durations, outcome, throughput } from "../charts.js";
import { h, show } from "../dom.js";
import { duration, number, plural, share, short } from "../format.js";
import { follow } from "../live.js";
import { act, button, data, executionLink, href, link, name, panel, panelWith, problem, progress, rate, table, took, when } from "../parts.js";

export const title = "Overview";

const RANGES = { "1h": ["1 hour", 3600e3], "24h": ["24 hours", 86400e3], "7d": ["7 days", 7 * 86400e3], "30d": ["30 days", 30 * 86400e3] };
const TASKS = 12;

export function open({ body, actions, params }) {
  let range = params.range in RANGES ? params.range : "24h";
  const choice = h("div", { class: "segments", role: "group", "aria-label": "Range" });
  actions.append(choice, button("Report", (it) => act(it, report), { class: "quiet", title: "Keep a report of this time as a page" }));
  let found = {};
  let since = null;

  const report = () => save("report/", { format: "html", since: begin() }, `aiotrack-${range}.html`);
  const begin = () => new Date(Date.now() - RANGES[range][1]).toISOString();

  function showChoice() {
    show(choice, Object.entries(RANGES).map(([name, [words]]) =>
      h("a", { key: name, href: href("overview", { range: name }), "aria-current": name === range ? "true" : null }, words)));
  }

  /** Of the failures that were made last, those that ended last: an order by the end alone finds no rare status quickly. */
  const latest = (items) => items.toSorted((one, other) => Date.parse(other.finished_at) - Date.parse(one.finished_at)).slice(0, 6);

  /** Read every part on its own: one that is refused or slow does not hide the others. */
  async function read(signal) {
    since = begin();
    const all = { my_tasks: "false" };
    const asked = {
      stats: get("executions/stats/", { ...all, start_date: since }, signal),
      running: get("executions/", { ...all, status: "STARTED", page_size: 8 }, signal),
      failed: get("executions/", { ...all, status: "FAILURE", start_date: since, page_size: 50 }, signal),
      workers: get("workers/", {}, signal),
      queues: get("queues/", {}, signal),
      alerts: get("alerts/", {}, signal),
    };
    let worst = null;
    await Promise.all(Object.entries(asked).map(async ([name, answer]) => {
      try {
        found[name] = await answer;
        delete found[`${name}Error`];
      } catch (error) {
        if (signal.aborted) return;
        found[`${name}Error`] = error;
        worst = error;
      }
      if (!signal.aborted) render();
    }));
    if (found.statsError && worst) throw worst;
  }

  /** What the API refused of a part; that nobody answers at all is said once, above what is known. */
  const wrong = (part) => found[`${part}Error`]?.status && problem(found[`${part}Error`]);

  function render() {
    const { stats, running, failed, workers, queues } = found;
    show(body,
      found.statsError && problem(found.statsError),
      attention(),
      stats && tiles(stats),
      h("div", { class: "pair", key: "charts" },
        stats ? h("section", { class: "panel", key: "throughput", "aria-label": "Throughput" }, throughput(stats.timeline)) : waiting("throughput"),
        stats ? h("section", { class: "panel", key: "durations", "aria-label": "Durations" }, durations(stats)) : waiting("durations")),
      h("div", { class: "pair", key: "now" },
        panelWith("Running now", running?.items.length > 0 && link("All that run", "executions", { status: "STARTED" }), wrong("running") || running && table("What runs now", [
          ["Task", (one) => executionLink(one, name(one.task_name), {})],
          ["Progress", (one) => progress(one.progress, `Progress of ${one.task_name}`), { class: "wide" }],
          ["For", took, { class: "num" }],
        ], running.items, (one) => one.id, "Nothing runs.")),
        panelWith("Failed last", failed?.items.length > 0 && link("All failures", "executions", { status: "FAILURE", since }), wrong("failed") || failed && table("What failed last", [
          ["Task", (one) => executionLink(one, name(one.task_name), {})],
          ["Id", (one) => data(short(one.task_id), { class: "data mono", title: one.task_id })],
          ["Ended", (one) => when(one.finished_at), { class: "num" }],
        ], latest(failed.items), (one) => one.id, "Nothing failed."))),
      h("div", { class: "pair", key: "tasks" },
        stats && panel("Tasks", tasks(stats)),
        h("div", { class: "column", key: "side" },
          panel("Workers", wrong("workers") || workers && workerLines(workers.items)),
          panel("Queues", wrong("queues") || queues && table("Queues", [
            ["Queue", (one) => data(one.name)],
            ["Waiting", (one) => number(one.depth), { class: "num" }],
            ["Oldest", (one) => duration(one.oldest_age), { class: "num" }],
          ], queues.items, (one) => one.name, "No broker here tells its queues.")))));
  }

  const waiting = (name) => h("section", { class: "panel waiting", key: name, "aria-busy": "true" }, h("p", { class: "empty" }, "…"));

  function tiles(stats) {
    const tile = (name, value, more, params, kind = "") =>
      h("a", { class: `tile ${kind}`, key: name, href: href("executions", { ...params, since }) },
        h("span", { class: "name" }, name), h("span", { class: "value" }, value), h("span", { class: "more" }, more));
    return h("div", { class: "tiles", key: "tiles" },
      tile("Executions", number(stats.total), `${number(stats.success)} succeeded`, {}),
      tile("Failure rate", rate(stats), plural(stats.failure, "failure"), { status: "FAILURE" }, stats.failure ? "bad" : ""),
      tile("Running", number(stats.started), stats.retry ? `${number(stats.retry)} to be retried` : "at this moment", { status: "STARTED" }),
      tile("Waiting", number(stats.pending), `p95 wait ${duration(stats.p95_wait)}`, { status: "PENDING" }),
      tile("Duration, p95", duration(stats.p95_duration), `mean ${duration(stats.mean_duration)}`, { order: "-duration" }));
  }

  function tasks(stats) {
    const rows = Object.entries(stats.by_task_name)
      .map(([name, counts]) => ({ name, ...counts }))
      .sort((one, other) => other.total - one.total);
    return [
      table("Executions by task", [
        ["Task", (one) => link(name(one.name), "executions", { task_name: one.name, since })],
        ["Executions", (one) => number(one.total), { class: "num" }],
        ["Failed", (one) => number(one.failure), { class: "num" }],
        ["Failure rate", (one) => h("span", { class: "load" }, outcome(one), h("span", {}, rate(one))), { class: "wide" }],
      ], rows.slice(0, TASKS), (one) => one.name, "Nothing was sent in this time."),
      rows.length > TASKS && h("p", { class: "more" }, `and ${plural(rows.length - TASKS, "more task")}`),
    ];
  }

  const workerLines = (items) => {
    const alive = items.filter((one) => one.status === "alive");
    const running = alive.reduce((sum, one) => sum + one.running, 0);
    const room = alive.reduce((sum, one) => sum + (one.concurrency ?? 0), 0);
    return h("p", {},
      link(`${plural(alive.length, "worker")} alive`, "workers"),
      room ? `, ${number(running)} of ${number(room)} places in use (${share(running / room)})` : `, ${number(running)} running`);
  };

  /** What somebody should look at, and where: alerts, and what is seen before the next of them. */
  function attention() {
    const lines = (found.alerts?.items ?? []).map((one) => ({
      key: `${one.rule} ${one.subject}`,
      words: [h("a", { href: placeOf(one) }, data(one.subject)), ": ", data(one.text), h("span", { class: "small" }, " since ", when(one.began_at))],
    }));
    const told = new Set((found.alerts?.items ?? []).map((one) => one.rule));
    const lost = (found.workers?.items ?? []).filter((one) => one.status === "lost");
    if (lost.length && !told.has("lost-worker")) {
      lines.push({ key: "lost", words: link(`${plural(lost.length, "worker")} stopped beating`, "workers") });
    }
    const depth = (found.queues?.items ?? []).reduce((sum, one) => sum + one.depth, 0);
    if (depth && found.workers && !found.workers.items.some((one) => one.status === "alive")) {
      lines.push({ key: "nobody", words: link(`${plural(depth, "message")} waiting, and no worker is alive`, "workers") });
    }
    for (const one of found.queues?.items ?? []) {
      if (one.dead_letters) {
        lines.push({ key: `dead ${one.name}`, words: h("a", { href: href("queues") }, data(one.name), `: ${plural(one.dead_letters, "dead letter")}`) });
      }
    }
    return lines.length > 0 && h("section", { class: "panel attention", key: "attention", "aria-label": "To be looked at" },
      h("h2", {}, "To be looked at"),
      h("ul", {}, lines.map(({ key, words }) => h("li", { key }, h("span", { class: "sign", "aria-hidden": "true" }, "▲"), h("span", {}, words)))));
  }

  /** Where more is told of what an alert is about. */
  function placeOf({ rule, subject }) {
    if (rule.includes("worker")) return href("workers");
    if (rule.includes("backlog")) return href("queues");
    if (rule.includes("schedule")) return href("schedules");
    return href("executions", { task_name: subject, ...(rule.includes("failure") ? { status: "FAILURE" } : { order: "-duration" }) });
  }

  const start = () => {
    showChoice();
    render();
    follow({ read, stream: "executions/events/", params: { my_tasks: "false" }, every: 5000 });
  };
  start();
  return {
    update(params) {
      range = params.range in RANGES ? params.range : "24h";
      start();
    },
  };
}
