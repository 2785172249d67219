// The dialog that makes a definition; what the server finds wrong stands beside the fields.

import { get, post } from "./api.js";
import { h, show } from "./dom.js";
import { isUtc } from "./format.js";
import { confirm, data, field } from "./parts.js";

const KINDS = { cron: "by crontab", interval: "at an interval", once: "once", manual: "by hand only" };

// the fields that say when, by the kind that they belong to
const TIMES = { cron: ["cron", "tz"], interval: ["seconds"], once: ["at"] };

/** Ask for a definition and make it; gives what was made, or null. */
export async function define() {
  const names = h("datalist", { id: "task-types" });
  const takes = h("p", { class: "small" });
  const task = field("Task", "task_type", { required: true, maxlength: 1000, list: "task-types" });
  let known = [];
  const showTakes = () => {
    const found = known.find((one) => one.name === task.querySelector("input").value)?.parameters;
    const needed = Object.keys(found?.properties ?? {}).map((one) => (found.required?.includes(one) ? one : `${one} (or not)`));
    show(takes, found && ["It takes: ", data(needed.join(", ") || "nothing"), "."]);
  };
  task.addEventListener("input", showTakes);
  get("task-types/").then(({ items }) => {
    known = items;
    show(names, items.map((one) => h("option", { value: one.name })));
    showTakes();
  }, () => {}); // a reader who knows the name needs no list
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const kind = field("Runs", "schedule_kind", { options: Object.entries(KINDS), value: "cron" });
  const times = {
    cron: field("Crontab", "schedule.cron", { placeholder: "0 3 * * 1-5", maxlength: 200 }),
    tz: field("Time zone", "schedule.tz", { value: isUtc() ? "UTC" : zone, maxlength: 100 }),
    seconds: field("Every so many seconds", "schedule.seconds", { type: "number", min: 1, value: 3600 }),
    at: field(`At (${isUtc() ? "UTC" : "your time"})`, "schedule.at", { type: "datetime-local", step: 1 }),
  };
  const showTimes = () => {
    const wanted = TIMES[kind.querySelector("select").value] ?? [];
    for (const [name, one] of Object.entries(times)) one.hidden = !wanted.includes(name);
  };
  kind.addEventListener("change", showTimes);
  showTimes();
  let made = null;
  await confirm({
    title: "New definition",
    text: names,
    verb: "Create",
    isWide: true,
    fields: [
      h("div", { class: "line even" },
        field("Name", "name", { required: true, maxlength: 200 }),
        task),
      field("Arguments, as JSON", "parameters", { rows: 3, value: "{}" }),
      takes,
      h("div", { class: "line even" }, kind, Object.values(times)),
      h("div", { class: "line even" },
        field("Priority, 1 to 10", "priority", { type: "number", min: 1, max: 10, value: 5, required: true }),
        field("Queue", "queue", { placeholder: "the task's own", maxlength: 1000 })),
      field("Description", "description", { maxlength: 2000 }),
    ],
    submit: async (given) => {
      let parameters;
      try {
        parameters = JSON.parse(given.parameters.trim() || "{}");
      } catch (error) {
        return [{ path: "body.parameters", message: `is no JSON: ${error.message}` }];
      }
      made = await post("configs", bodyOf(given, parameters));
      return null;
    },
  });
  return made;
}

function bodyOf(given, parameters) {
  const schedule = {};
  for (const name of TIMES[given.schedule_kind] ?? []) {
    const value = given[`schedule.${name}`].trim();
    if (value) schedule[name] = { seconds: Number, at: moment }[name]?.(value) ?? value;
  }
  return {
    name: given.name, task_type: given.task_type, description: given.description, parameters,
    schedule_kind: given.schedule_kind, schedule, priority: Number(given.priority), queue: given.queue || null,
  };
}

const moment = (value) => new Date(isUtc() ? `${value}Z` : value).toISOString();
