// The processes that run tasks.

import { get } from "../api.js";
import { load } from "../charts.js";
import { h, show } from "../dom.js";
import { bytes, number, plural, share } from "../format.js";
import { follow, reader } from "../live.js";
import { badge, data, link, problem, table, when, whenAgo } from "../parts.js";

export const title = "Workers";

export function open({ body }) {
  let items = null;
  let failure = null;

  const read = reader(async (signal) => {
    items = (await get("workers/", {}, signal)).items;
  }, (error) => { failure = error; }, render);

  function render() {
    const alive = items?.filter((one) => one.status === "alive") ?? [];
    const rest = items?.filter((one) => one.status !== "alive") ?? [];
    show(body,
      failure && problem(failure),
      items && h("section", { class: "panel", key: "alive", "aria-label": "Alive" },
        h("h2", {}, plural(alive.length, "worker"), " alive"),
        table("Workers that are alive", [
          ["Worker", (one) => link(data(one.id), "executions", { worker: one.id }, null, { class: "mono" }), { class: "grow" }],
          ["Host", (one) => [data(one.host), ` · ${one.pid}`]],
          ["Load", (one) => one.concurrency
            ? load(one.running / one.concurrency, `${number(one.running)} of ${number(one.concurrency)}`, `Load of ${one.id}`)
            : `${number(one.running)} running`, { class: "wide" }],
          ["CPU", (one) => share(one.cpu), { class: "num" }],
          ["Memory", (one) => bytes(one.memory), { class: "num" }],
          ["Queues", (one) => data(one.queues.join(", ") || "–")],
          ["Up since", (one) => when(one.started_at), { class: "num" }],
          ["Beat", (one) => whenAgo(one.beat_at), { class: "num" }],
          ["Knows", tasks, { class: "grow" }],
        ], alive, (one) => one.id, "No worker is alive. One that runs with TrackerMiddleware shows itself here within a second.")),
      rest.length > 0 && h("section", { class: "panel", key: "gone", "aria-label": "Lost or stopped" },
        h("h2", {}, "Lost or stopped within a day"),
        table("Workers that were lost or stopped", [
          ["Worker", (one) => link(data(one.id), "executions", { worker: one.id }, null, { class: "mono" }), { class: "grow" }],
          ["State", (one) => badge(one.status)],
          ["Host", (one) => [data(one.host), ` · ${one.pid}`]],
          ["Started", (one) => when(one.started_at), { class: "num" }],
          ["Heard of last", (one) => when(one.stopped_at ?? one.beat_at), { class: "num" }],
        ], rest, (one) => one.id)));
  }

  const tasks = (one) => h("details", {},
    h("summary", {}, plural(one.tasks.length, "task")),
    h("p", { class: "small" }, Object.entries(one.versions).map(([name, version]) => `${name} ${version}`).join(", ")),
    h("ul", { class: "plain small" }, one.tasks.map((name) => h("li", {}, data(name)))));

  follow({ read, every: 2000 });
}
