// Find executions, and act on all that the filters match.

import { get, post } from "../api.js";
import { h, show } from "../dom.js";
import { moment, number, plural } from "../format.js";
import { follow } from "../live.js";
import { act, badge, button, confirm, data, executionLink, field, href, link, name, problem, progress, say, table, took, when } from "../parts.js";

export const title = "Executions";

const STATUSES = ["PENDING", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED"];
const CLASSES = ["transient", "permanent", "timeout", "cancelled", "lost", "invalid_result", "invalid_input"];
const ORDERS = {
  "-created_at": "Newest first", created_at: "Oldest first",
  "-finished_at": "Ended last first", finished_at: "Ended first first",
  "-duration": "Longest first", duration: "Shortest first",
};
const SIZES = ["25", "50", "100", "200"];
const PLAIN = ["text", "task_name", "module", "worker", "created_by", "error_class", "since", "until", "config_id", "schedule_id"];
const SECOND = ["module", "worker", "created_by", "error_class", "since", "until", "config_id", "schedule_id", "metadata"];
const MOST = { cancel: 1000, rerun: 500 }; // executions that one bulk action takes

const listed = (value) => (value === undefined ? [] : [value].flat());

/** The filters of an address, as the API takes them. */
function filtersOf(params) {
  const found = {};
  for (const name of PLAIN) if (params[name]) found[name] = listed(params[name])[0];
  for (const name of ["since", "until"]) if (found[name]) found[name] = moment(found[name], name === "until");
  if (params.status) found.status = listed(params.status);
  for (const [name, value] of Object.entries(params)) if (name.startsWith("metadata.")) found[name] = listed(value)[0];
  return found;
}

export function open({ body, params }) {
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } });
  const acts = h("div", { class: "bulk" });
  const rows = h("div", { class: "panel rows" });
  let answer = null;
  let failure = null;
  body.append(form, acts, rows);

  // ── the filters ─────────────────────────────────────────────────────────────────────────────
  const box = (name) => h("label", { class: "check" },
    h("input", { type: "checkbox", name: "status", value: name }), badge(name));
  const metadata = field("Metadata", "metadata", { placeholder: "order_id=7" });
  form.append(
    h("div", { class: "line" },
      field("Id or task begins with", "text", { type: "search", maxlength: 500 }),
      field("Task", "task_name", { maxlength: 500 }),
      field("Order", "order", { options: Object.entries(ORDERS), wide: "some" }),
      field("Rows", "page_size", { options: SIZES.map((one) => [one, one]), value: "50", wide: "few" })),
    h("fieldset", { class: "line" }, h("legend", {}, "Status"), STATUSES.map(box)),
    h("details", {}, h("summary", {}, "More filters"),
      h("div", { class: "line even" },
        field("Module", "module", { maxlength: 500 }),
        field("Worker", "worker", { maxlength: 500 }),
        field("Created by", "created_by", { maxlength: 500 }),
        field("Error class", "error_class", { options: [["", "any"], ...CLASSES.map((one) => [one, one])] }),
        field("Since", "since", { placeholder: "2027-01-31 12:00" }),
        field("Until", "until", { placeholder: "2027-01-31 12:00" }),
        field("Definition", "config_id", { inputmode: "numeric", maxlength: 19 }),
        field("Schedule", "schedule_id", { maxlength: 255 }),
        metadata)));

  function fill() {
    const pairs = Object.entries(params).filter(([name]) => name.startsWith("metadata."));
    for (const input of form.elements) {
      if (!input.name || input === document.activeElement) continue;
      if (input.type === "checkbox") input.checked = listed(params.status).includes(input.value);
      else if (input.name === "metadata") input.value = pairs.map(([name, value]) => `${name.slice(9)}=${listed(value)[0]}`)[0] ?? "";
      else input.value = listed(params[input.name])[0] ?? { order: "-created_at", page_size: "50" }[input.name] ?? "";
    }
    if (SECOND.some((name) => params[name]) || pairs.length) form.querySelector("details").open = true;
  }

  /** Write the filters into the address; that shows them, and begins at the first page. */
  function apply(isTyped) {
    const given = new FormData(form);
    const found = {};
    for (const name of [...PLAIN, "order", "page_size"]) found[name] = (given.get(name) ?? "").trim();
    if (found.order === "-created_at") delete found.order;
    if (found.page_size === "50") delete found.page_size;
    found.status = given.getAll("status");
    const [, name, value] = /^([^=]+)=(.*)$/.exec(given.get("metadata")) ?? [];
    if (name) found[`metadata.${name.trim()}`] = value.trim();
    const next = href("executions", found);
    if (next === location.hash) return;
    if (isTyped) location.replace(next); // the way back leads not through each letter
    else location.hash = next;
  }

  let typed = null;
  form.addEventListener("input", (event) => {
    const isTyped = event.target.matches("input:not([type=checkbox])");
    clearTimeout(typed);
    typed = setTimeout(() => apply(isTyped), isTyped ? 400 : 0);
  });

  // ── the rows ────────────────────────────────────────────────────────────────────────────────
  async function read(signal) {
    const asked = { ...filtersOf(params), my_tasks: "false", count: "true" };
    for (const name of ["order", "page_size", "after"]) if (params[name]) asked[name] = listed(params[name])[0];
    try {
      answer = await get("executions/", asked, signal);
      failure = null;
    } catch (error) {
      if (signal.aborted) return;
      failure = error;
      render();
      throw error;
    }
    if (!signal.aborted) render();
  }

  const told = () => (answer.total === undefined ? "" : answer.total_exact === false ? `${number(answer.total)}+ executions` : plural(answer.total, "execution"));

  function render() {
    const filters = filtersOf(params);
    const isFiltered = Object.keys(filters).length > 0;
    show(acts,
      answer && h("p", { class: "count" }, told()),
      isFiltered && link("Clear filters", "executions", {}, null, { class: "button quiet" }),
      h("span", { class: "gap" }),
      button("Cancel all …", (self) => bulk(self, "cancel"), { disabled: !isFiltered, title: isFiltered ? null : "Filter first" }),
      button("Rerun all …", (self) => bulk(self, "rerun"), { disabled: !isFiltered, title: isFiltered ? null : "Filter first" }));
    show(rows,
      failure && problem(failure),
      answer && table("Executions", [
        ["Status", (one) => badge(one.status), { class: "tight" }],
        ["Task", (one) => executionLink(one, name(one.task_name || "(not known yet)"), {}), { class: "grow" }],
        ["Id", (one) => executionLink(one), { class: "id" }],
        ["Progress", (one) => (one.status === "SUCCESS" ? "" : progress(one.progress, `Progress of ${one.task_id}`) ?? ""), { class: "wide" }],
        ["By", (one) => { const who = one.created_by_username ?? one.created_by; return who ? data(who) : null; }, { class: "by" }],
        ["Created", (one) => when(one.created_at), { class: "num at" }],
        ["Duration", took, { class: "num took" }],
      ], answer.items, (one) => one.id, isFiltered ? "Nothing matches these filters." : "Nothing was recorded yet."),
      answer && (params.after || answer.next) && h("nav", { class: "pager", "aria-label": "Pages of the list" },
        params.after ? link("First page", "executions", { ...params, after: "" }, null, { class: "button" }) : h("span", {}),
        params.after && button("Back", () => history.back(), { class: "quiet" }),
        answer.next && link("Next page", "executions", { ...params, after: answer.next }, null, { class: "button" })));
  }

  /** Act on all that the filters match, once the reader has seen how many they are. */
  async function bulk(self, verb) {
    const filters = { ...filtersOf(params), my_tasks: "false" };
    const counted = await act(self, () => get("executions/", { ...filters, page_size: 1, count: "true" }));
    if (!counted) return;
    if (!counted.total) {
      say("Nothing matches these filters any more");
      return;
    }
    const many = counted.total_exact === false ? `${number(counted.total)}+ executions` : plural(counted.total, "execution");
    const wanted = await confirm({
      title: verb === "cancel" ? `Cancel ${many}?` : `Rerun ${many}?`,
      text: [
        h("p", {}, "All that match these filters, on every page:"),
        h("ul", {}, Object.entries(filters).filter(([name]) => name !== "my_tasks").map(([name, value]) => h("li", {}, `${name}: `, data([value].flat().join(", "))))),
        h("p", {}, verb === "cancel"
          ? "What waits will not run, what runs is told to stop; what is over stays as it is."
          : "Each is sent once more under a new id; what cannot be repeated is told."),
        counted.total > MOST[verb] && h("p", {}, `At most ${number(MOST[verb])} of them at a time.`),
      ],
      verb: verb === "cancel" ? `Cancel ${many}` : `Rerun ${many}`,
      isBad: verb === "cancel",
      fields: verb === "cancel" ? [field("Reason", "reason", { maxlength: 500 })] : [],
    });
    if (!wanted) return;
    const given = verb === "cancel" && wanted.reason ? { reason: wanted.reason } : {};
    const done = await act(self, () => post(`executions/${verb}/`, given, { ...filters, limit: MOST[verb] }));
    if (done) say(outcomes(done));
    follower.refresh();
  }

  const outcomes = (done) =>
    Object.entries(done.outcomes ?? { "sent once more": done.sent, "not sent": done.failed })
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${number(count)} ${name.replaceAll("_", " ")}`)
      .join(", ") || "There was nothing to do";

  /** Show what an event tells of a row that is here; others are found by reading anew. */
  function onEvent(told) {
    const known = answer?.items.find((one) => one.id === told.id);
    if (!known) return canMatch(told.status) ? false : null;
    const isOld = known.status === told.status;
    Object.assign(known, told);
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      render();
    });
    return isOld;
  }

  /** Whether a row of a status may be here; words of other tools are left to the API. */
  function canMatch(status) {
    const wanted = listed(params.status);
    return !wanted.length || wanted.includes(status) || !wanted.every((one) => STATUSES.includes(one));
  }

  let waiting = null;

  // ── live ────────────────────────────────────────────────────────────────────────────────────
  let follower = null;

  function start() {
    fill();
    if (answer) render();
    const { status: _, ...others } = filtersOf(params); // a stream of one status tells not what leaves it
    follower = follow({
      read,
      stream: params.after ? null : "executions/events/",
      params: { ...others, my_tasks: "false" },
      onEvent,
      every: 5000,
    });
  }

  start();
  return {
    update(next) {
      params = next;
      start();
    },
  };
}
