// Where messages wait.

import { get } from "../api.js";
import { h, show } from "../dom.js";
import { duration, number } from "../format.js";
import { follow, reader } from "../live.js";
import { data, problem, table } from "../parts.js";

export const title = "Queues";

export function open({ body }) {
  let items = null;
  let failure = null;

  const read = reader(async (signal) => {
    items = (await get("queues/", {}, signal)).items;
  }, (error) => { failure = error; }, render);

  function render() {
    const most = Math.max(1, ...(items ?? []).map((one) => one.depth));
    show(body,
      failure && problem(failure),
      items && h("div", { class: "panel", key: "queues" }, table("Queues", [
        ["Queue", (one) => data(one.name), { class: "grow" }],
        ["Waiting", (one) => h("span", { class: "load" },
          h("meter", { min: 0, max: most, value: one.depth, "aria-label": `Waiting in ${one.name}` }), number(one.depth)), { class: "wide" }],
        ["Oldest", (one) => duration(one.oldest_age), { class: "num" }],
        ["Consumers", (one) => (one.consumers === null ? "not known" : number(one.consumers)), { class: "num" }],
        ["Dead letters", (one) => h("span", { class: one.dead_letters ? "bad" : "" }, number(one.dead_letters)), { class: "num" }],
      ], items, (one) => one.name,
      "This process has no broker that tells its queues: give one to create_router or `aiotrack serve`.")));
  }

  follow({ read, every: 2000 });
}
