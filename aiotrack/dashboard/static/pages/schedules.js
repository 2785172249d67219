// Definitions and their schedules: pause, resume, run now.

import { get, post } from "../api.js";
import { define } from "../definition.js";
import { h, show } from "../dom.js";
import { duration } from "../format.js";
import { follow, reader } from "../live.js";
import { act, badge, button, data, field, href, link, name, problem, say, table, when, whenAgo } from "../parts.js";

export const title = "Schedules";

const SAID = { start: "Started", stop: "Stopped", pause: "Paused", resume: "Goes on", trigger: "Sent" };

export function open({ body, actions, params }) {
  let answer = null;
  let failure = null;
  let follower = null;
  const rows = h("div", { class: "panel" });
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } },
    h("div", { class: "line" }, field("Name, description or task contains", "text", { type: "search", maxlength: 200 })));
  let typed = null;
  form.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => location.replace(href("schedules", { text: form.elements.text.value.trim() })), 400);
  });
  body.append(form, rows);
  actions.append(button("New definition …", create));

  const read = reader(async (signal) => {
    answer = await get("configs/", { text: params.text, after: params.after, limit: 100 }, signal);
  }, (error) => { failure = error; }, render);

  function render() {
    show(rows,
      failure && problem(failure),
      answer && table("Definitions and their schedules", [
        ["Name", (one) => [data(one.name), one.description && h("div", { class: "small" }, data(one.description))], { class: "grow" }],
        ["Task", (one) => link(name(one.task_type), "executions", { config_id: one.id })],
        ["Schedule", timing],
        ["State", (one) => (one.schedule_status ? badge(one.schedule_status) : h("span", { title: "The server that keeps schedules does not answer" }, "not known"))],
        ["Next run", (one) => (one.next_run_at ? [when(one.next_run_at), h("div", { class: "small" }, whenAgo(one.next_run_at))] : "–"), { class: "num" }],
        ["Actions", verbs, { class: "verbs" }],
      ], answer.items, (one) => one.id, params.text ? "No definition matches." : "No definition is stored. The button above makes one, or tracker.definitions.create."),
      answer && (params.after || answer.next) && h("nav", { class: "pager", "aria-label": "Pages of the list" },
        params.after ? link("First page", "schedules", { text: params.text }, null, { class: "button" }) : h("span", {}),
        answer.next && link("Next page", "schedules", { ...params, after: answer.next }, null, { class: "button" })));
  }

  function timing(one) {
    const { cron, tz, seconds, at } = one.schedule;
    if (one.schedule_kind === "cron") return [h("code", {}, data(cron)), h("div", { class: "small" }, name(tz ?? "UTC"))];
    if (one.schedule_kind === "interval") return `every ${duration(seconds)}`;
    if (one.schedule_kind === "once") return ["once, ", when(at)];
    return "by hand";
  }

  function verbs(one) {
    const state = one.schedule_status;
    const verb = (name, words, more = {}) => button(words, (self) => change(self, one, name), { key: name, "aria-label": `${words}: ${one.name}`, ...more });
    return h("span", { class: "buttons" },
      verb("trigger", "Run now"),
      one.schedule_kind !== "manual" && [
        state === "active" && verb("pause", "Pause"),
        state === "paused" && verb("resume", "Resume"),
        state === "inactive" && verb("start", "Start"),
        (state === "active" || state === "paused") && verb("stop", "Stop", { class: "quiet" }),
      ]);
  }

  async function create() {
    const made = await define();
    if (made) say(`${made.name} is stored${made.schedule_status === "active" ? ", and its schedule is active" : ""}`);
    follower.refresh();
  }

  async function change(self, one, action) {
    const done = await act(self, () => post(`configs/${one.id}/schedule`, { action }));
    if (done) say(`${SAID[action]}: ${one.name}`);
    follower.refresh();
  }

  function start() {
    if (form.elements.text !== document.activeElement) form.elements.text.value = params.text ?? "";
    follower = follow({ read, every: 2000 });
  }

  start();
  return {
    update(next) {
      params = next;
      start();
    },
  };
}
