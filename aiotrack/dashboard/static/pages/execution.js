// One execution: its attempts, how far it is, what it logs, what went in and what came out.

import { get, pathOf, post } from "../api.js";
import { attempts as timeline } from "../charts.js";
import { h, show } from "../dom.js";
import { duration, exactly, plural } from "../format.js";
import { follow } from "../live.js";
import { act, badge, block, button, confirm, copyButton, data, executionLink, facts, field, href, link, name, panel, panelWith, problem, progress, say, table, took, when } from "../parts.js";

export const title = "Execution";

const LINES = 500; // of a page of the log
const SHOWN = 1000; // lines that a browser draws without effort
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];

export function open({ body, heading, actions, id, params }) {
  const path = /^\d+$/.test(params.number) ? `executions/${params.number}/` : pathOf(id);
  const log = { lines: [], cursor: null, level: params.level ?? "", failure: null };
  let found = null;
  let runs = [];
  let locks = [];
  let failure = null;
  let follower = null;

  /** What a sweep presumed may still run, or wait. */
  const isOver = () => found.is_completed && !found.presumed;

  /** Open by its number what no path has by its task_id. */
  async function seek() {
    try {
      const { id: number } = await get("executions/status/", { task_id: id, sync: "false" });
      if (body.isConnected) location.replace(href("execution", { number }));
    } catch (error) {
      failure = error;
      render();
    }
  }

  async function read(signal) {
    try {
      found = await get(path, {}, signal);
      failure = null;
    } catch (error) {
      if (signal.aborted) return;
      failure = error;
      render();
      throw error;
    }
    const rest = await Promise.allSettled([
      get(`${path}attempts/`, {}, signal),
      readLogs(signal),
      isOver() ? { items: [] } : get("locks/", { task_id: found.task_id }, signal),
    ]);
    if (signal.aborted) return;
    if (rest[0].status === "fulfilled") runs = rest[0].value.items;
    log.failure = rest[1].status === "rejected" ? rest[1].reason : null;
    locks = rest[2].status === "fulfilled" ? rest[2].value.items : []; // without Redis there are none
    render();
    if (isOver()) follower?.done();
  }

  /** Read what was logged since the last time: lines are only ever added. */
  async function readLogs(signal) {
    for (let page = 0; page < 20; page += 1) {
      const answer = await get(`${path}logs/`, { level: log.level, limit: LINES, after: log.cursor }, signal);
      if (answer.next === null) {
        // the last page may grow: it is read again from its beginning
        log.lines = [...log.lines.slice(0, log.kept ?? 0), ...answer.items];
        return;
      }
      log.lines = [...log.lines.slice(0, log.kept ?? 0), ...answer.items];
      log.kept = log.lines.length;
      log.cursor = answer.next;
    }
  }

  function chooseLevel(level) {
    Object.assign(log, { level, lines: [], cursor: null, kept: 0 });
    history.replaceState(null, "", href("execution", { level, number: params.number }, id));
    start();
  }

  // ── what is shown ───────────────────────────────────────────────────────────────────────────
  function render() {
    if (found === null) {
      show(body, failure ? [problem(failure), h("p", {}, link("To all executions", "executions"))] : h("p", { class: "empty" }, "…"));
      return;
    }
    document.title = `${found.task_name} · aiotrack`;
    show(heading, name(found.task_name || "(not known yet)"));
    show(actions, buttons());
    show(body,
      failure && problem(failure),
      h("div", { class: "head", key: "head" },
        badge(found.status), found.presumed && h("span", { class: "note", title: "A sweep's verdict, which yields to the worker's own word" }, "presumed"),
        data(found.task_id, { class: "data mono" }), copyButton(found.task_id, "the id")),
      !found.is_completed && progress(progressOf(found), "Progress") && h("div", { class: "panel big", key: "progress" }, progress(progressOf(found), "Progress")),
      found.error !== null && panel(found.status === "REVOKED" ? "Cancelled" : "Error",
        h("p", { class: "error" },
          (found.error_type || found.error_class) && [h("strong", {}, data(found.error_type ?? "Error")), found.error_class && h("span", { class: "note" }, data(found.error_class)), h("br")],
          data(found.error)),
        found.traceback && block("Traceback", found.traceback)),
      panel("Attempts", timeline(found, runs), attemptTable()),
      h("div", { class: "pair", key: "facts" }, panel("Facts", factList()), panel("Values", values())),
      panelWith("Log", logHead(), logLines()));
  }

  const progressOf = (one) => one.progress ?? {
    percent: one.metadata?.progress_percent, message: one.metadata?.progress_message, step: one.metadata?.progress_step,
  };

  const errorOf = (one) => [one.error_type, one.error].filter(Boolean).join(": ");

  const attemptTable = () => table("Attempts", [
    ["Attempt", (one) => [`#${one.attempt} `, h("span", { class: "small" }, one.cause)], { class: "tight" }],
    ["Status", (one) => badge(one.status)],
    ["Started", (one) => when(one.started_at), { class: "num" }],
    ["Duration", (one) => took({ ...one, is_running: one.status === "STARTED" && !found.is_completed }), { class: "num" }],
    ["Worker", (one) => data(one.worker ?? "–", { class: "data mono" })],
    runs.some((one) => one.error !== null) && ["Error", (one) => one.error === null ? "" : one.traceback
      ? h("details", {}, h("summary", {}, data(errorOf(one))), h("pre", { tabindex: "0" }, data(one.traceback)))
      : data(errorOf(one)), { class: "grow" }],
  ].filter(Boolean), runs, (one, index) => index, "It has not run yet.");

  const traceOf = (one) => {
    const id = data(one.trace_id, { class: "data mono" });
    return one.trace_url ? h("a", { href: one.trace_url, target: "_blank", rel: "noopener noreferrer" }, id) : id;
  };

  function factList() {
    const one = found;
    return facts([
      ["Module", data(one.module)],
      ["Created", [when(one.created_at), one.created_by && [" by ", data(one.created_by_username ?? one.created_by)]]],
      ["Started", one.started_at && when(one.started_at)],
      ["Ended", one.finished_at && when(one.finished_at)],
      ["Waited", one.wait !== null && duration(one.wait)],
      ["Duration", one.is_running ? `${took(one)} so far` : took(one)],
      ["Time limit", one.time_limit && duration(one.time_limit)],
      ["Queue", one.queue && data(one.queue)],
      ["Priority", one.priority],
      ["Worker", one.worker && link(data(one.worker), "executions", { worker: one.worker }, null, { class: "mono" })],
      [one.status === "REVOKED" ? "Cancelled by" : "Cancel asked for by", one.cancelled_by && data(one.cancelled_by)],
      ["Reason", one.cancel_reason && data(one.cancel_reason)],
      ["Runs", one.runs > 1 && `${one.runs}${one.duplicates ? `, ${one.duplicates} of a message delivered again` : ""}`],
      ["Rerun of", one.rerun_of && executionLink({ task_id: one.rerun_of })],
      ["Sent by", one.parent_task_id && executionLink({ task_id: one.parent_task_id })],
      ["Definition", one.config_id && link(`#${one.config_id}`, "executions", { config_id: one.config_id })],
      ["Schedule", one.schedule_id && data(one.schedule_id)],
      ["Trace", one.trace_id && [traceOf(one), copyButton(one.trace_id, "the trace id")]],
      ["Locks", locks.length > 0 && locks.map((lock) => h("span", { class: "lock", key: lock.name }, link(data(lock.name), "locks"), ` (${duration(lock.left)} left)`))],
    ]);
  }

  const isEmpty = (value) => value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);

  const values = () => {
    const shown = [["Arguments", found.args], ["Keyword arguments", found.kwargs], ["Metadata", found.metadata], ["Result", found.result]]
      .filter(([name, value]) => !isEmpty(value) || (name === "Result" && found.is_success));
    return shown.length ? shown.map(([name, value]) => block(name, value)) : h("p", { class: "empty" }, "No arguments, no result.");
  };

  const logHead = () => h("div", { class: "buttons" },
    h("label", { class: "choice" }, h("span", {}, "Level"),
      h("select", { name: "level", on: { change: (event) => chooseLevel(event.currentTarget.value) } },
        h("option", { value: "", selected: log.level === "" }, "all"),
        LEVELS.map((one) => h("option", { value: one, selected: log.level === one }, one)))),
    log.lines.length > 0 && copyButton(log.lines.map((one) => `${one.at} ${one.level} ${one.logger}: ${one.message}`).join("\n"), "the log"));

  function logLines() {
    if (log.failure) return problem(log.failure);
    if (!log.lines.length) return h("p", { class: "empty" }, "It has logged nothing.");
    const left = Math.max(0, log.lines.length - SHOWN);
    return [left > 0 && h("p", { class: "small" }, `${plural(left, "earlier line")} not shown; Copy takes them all.`), lineList(left)];
  }

  const lineList = (left) =>
    h("ol", { class: "log", tabindex: "0", "aria-label": "Log lines" }, log.lines.slice(left).map((one, index) =>
      h("li", { key: left + index, class: `l-${one.level.toLowerCase()}` },
        h("time", { datetime: one.at, title: exactly(one.at) }, exactly(one.at).slice(-16).replace(/^\D*/, "").split(" ")[0]),
        h("span", { class: "level" }, one.level),
        runs.length > 1 && h("span", { class: "try" }, `#${one.attempt}`),
        data(one.message, { class: "data text", title: one.logger }))));

  // ── what may be done ────────────────────────────────────────────────────────────────────────
  const buttons = () => [
    !isOver() && button("Cancel …", cancel, { key: "cancel", class: "bad" }),
    button("Rerun …", rerun, { key: "rerun" }),
    !isOver() && button("Sync", sync, { key: "sync", class: "quiet", title: "Fill the record from the broker's result backend" }),
  ];

  async function cancel(self) {
    const wanted = await confirm({
      title: "Cancel this execution?",
      text: h("p", {}, data(found.task_name), ": ", found.presumed ? "it may still run, and is told to stop." : found.is_running ? "it runs, and is told to stop." : "it will not run."),
      verb: "Cancel it", isBad: true,
      fields: [field("Reason", "reason", { maxlength: 500 })],
    });
    if (!wanted) return;
    const done = await act(self, () => post(`${path}cancel/`, wanted.reason ? { reason: wanted.reason } : {}));
    if (done) say({
      revoked: "It is cancelled", cancelling: "It is told to stop", finished: "It was over already",
      not_interruptible: "It runs in a thread, which nobody can stop; it is told",
    }[done.outcome] ?? String(done.outcome));
    follower.refresh();
  }

  async function rerun(self) {
    const wanted = await confirm({
      title: "Run it once more?",
      text: h("p", {}, data(found.task_name), " is sent with the same arguments, under a new id."),
      verb: "Rerun",
    });
    if (!wanted) return;
    const done = await act(self, () => post(`${path}rerun/`));
    if (done) {
      say("Sent once more");
      location.hash = href("execution", {}, done.task_id);
    }
  }

  async function sync(self) {
    const before = found.status;
    const done = await act(self, () => post(`${path}sync/`));
    if (done) say(done.status === before ? "The result backend knows no more" : `It is ${done.status}`);
    follower.refresh();
  }

  /** Show at once what an event tells; the rest is read. */
  function onEvent(told) {
    if (found === null) return false;
    found = { ...found, ...told };
    render();
    return false;
  }

  function start() {
    const isSilent = () => found?.is_running ?? false; // its log has no events
    follower = follow({ read, stream: `${path}events/`, onEvent, every: 2000, isSilent });
  }

  render();
  if (path === null) seek();
  else start();
}
