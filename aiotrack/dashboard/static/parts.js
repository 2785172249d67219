// What several pages show.

import { Problem } from "./api.js";
import { h } from "./dom.js";
import { ago, duration, exactly, json, share, short, time } from "./format.js";

const SIGNS = {
  PENDING: "○", STARTED: "▶", SUCCESS: "✓", FAILURE: "✕", RETRY: "↻", REVOKED: "⊘",
  alive: "●", lost: "✕", stopped: "□", active: "●", paused: "‖", inactive: "○",
};

/** A state as a sign, a word and a colour. */
export const badge = (word) =>
  h("span", { class: `badge s-${String(word).toLowerCase()}` },
    h("span", { "aria-hidden": "true" }, SIGNS[word] ?? "·"), " ", word);

/** An address within the dashboard. */
export function href(page, params = {}, id = null) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") found.append(name, one);
  }
  const tail = found.size ? `?${found}` : "";
  return `#/${page}${id === null ? "" : `/${encodeURIComponent(id)}`}${tail}`;
}

export const link = (words, page, params, id, more = {}) => h("a", { href: href(page, params, id), ...more }, words);

/** Text of others: it stands apart from what is around it, whatever direction it runs in. */
export const data = (text, more = {}) => h("bdi", { class: "data", ...more }, text ?? "–");

/** The name of a task or the like: where it is too long for its place it breaks after a sign. */
export const name = (text) =>
  h("bdi", { class: "data", title: text?.length > 40 ? text : null },
    (text ?? "–").split(/(?<=[._/:-])(?=\w)/).map((one, index) => [index > 0 && h("wbr"), one]));

// No address can have half a character: such an execution is shown by its number, where that is known.
function placeOf({ task_id: taskId, id }) {
  if (taskId.isWellFormed()) return href("execution", {}, taskId);
  return id === undefined ? null : href("execution", { number: id });
}

/** A link to an execution: a row of a list, or at least its task_id. */
export const executionLink = (one, words = data(short(one.task_id)), more = { title: one.task_id, class: "mono" }) =>
  h("a", { href: placeOf(one), ...more }, words);

export const when = (text) =>
  text ? h("time", { datetime: text, title: `${exactly(text)}, ${ago(text)}` }, time(text)) : "–";

/** A moment, and how far it is. */
export const whenAgo = (text) =>
  text ? h("time", { datetime: text, title: exactly(text) }, ago(text)) : "–";

/** How long it took; of what runs, how long it has run. */
export function took(row) {
  if (typeof row.duration === "number") return duration(row.duration);
  if (!row.is_running || !row.started_at) return "–";
  const seconds = Math.max(0, Math.floor((Date.now() - new Date(row.started_at)) / 1000));
  return duration(seconds);
}

/** How far a task is: as a bar where it told a share. */
export function progress(told, label = "Progress") {
  const percent = told?.percent;
  const words = [told?.step, told?.message].filter((one) => typeof one === "string" || typeof one === "number").join(": ");
  if (typeof percent !== "number" && !words) return null;
  return h("span", { class: "progress" },
    typeof percent === "number" && [
      h("progress", { max: 100, value: percent, "aria-label": label }),
      h("span", { class: "percent" }, `${percent} %`),
    ],
    words && data(words, { class: "data said", title: words }));
}

/**
 * A table whose rows are told apart by `key`; on narrow screens each row is a card.
 *
 * @param {string} caption
 * @param {Array<[string, function, object?]>} columns a heading, what shows a row, attributes
 * @param {Array} rows
 * @param {function} key
 * @param {string} [empty] what is said when there are no rows
 */
export function table(caption, columns, rows, key, empty = "Nothing here.") {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h("table", { class: "stack" },
    h("caption", { class: "only-read" }, caption),
    h("thead", {}, h("tr", {}, columns.map(([name, , more]) => h("th", { scope: "col", ...more }, name)))),
    h("tbody", {}, rows.map((row, index) =>
      h("tr", { key: key(row, index) }, columns.map(([name, cell, more], place) => {
        const tag = place === 0 ? "th" : "td";
        return h(tag, { ...(place === 0 ? { scope: "row" } : {}), "data-label": name, ...more }, h("div", { class: "cell" }, cell(row, index)));
      })))));
}

/** Names and values; what is null is left out. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
    .map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))));

/** A card; `side` stands in the line of its title. */
export const panelWith = (title, side, ...inner) =>
  h("section", { class: "panel", key: title, "aria-label": title },
    h("div", { class: "title" }, h("h2", {}, title), side), inner);

export const panel = (title, ...inner) => panelWith(title, null, ...inner);

/** What went wrong, with every fault. */
export const problem = (error) =>
  h("div", { class: "problem", role: "alert", key: "problem" },
    h("strong", {}, error instanceof Problem && error.status ? `${error.status}: ` : ""),
    data(error.message),
    error.faults?.length > 1 && h("ul", {}, error.faults.map((one) => h("li", {}, data(one)))));

/** Text to be read and copied. */
export function block(name, text, { isOpen = true } = {}) {
  const shown = typeof text === "string" ? text : json(text);
  return h("details", { class: "block", key: name, open: isOpen },
    h("summary", {}, name),
    copyButton(shown, name),
    h("pre", { tabindex: "0", "aria-label": name }, data(shown)));
}

export function copyButton(text, name) {
  return h("button", {
    type: "button", class: "quiet copy", "aria-label": `Copy ${name}`, title: `Copy ${name}`,
    on: { click: async () => say((await copied(text)) ? `${name} copied` : "this browser does not let pages copy") },
  }, "Copy");
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "only-read", "aria-hidden": "true", tabindex: "-1" });
    area.value = text; // without https there is no clipboard, but this old way
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Tell what was done, to eyes and to screen readers. */
export function say(words, isBad = false) {
  const place = document.getElementById("said");
  const line = h("p", { class: isBad ? "bad" : "" }, data(words));
  place.replaceChildren(line);
  clearTimeout(say.timer);
  say.timer = setTimeout(() => line.remove(), isBad ? 12000 : 5000);
}

/** Do something that a button asks for; the button waits, and errors are told. */
export async function act(button, work) {
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    return await work();
  } catch (error) {
    say([error.message, ...(error.faults ?? []).filter((one) => !error.message.includes(one))].join("; "), true);
    return undefined;
  } finally {
    button.removeAttribute("aria-busy");
    button.disabled = false;
  }
}

export const button = (words, click, more = {}) =>
  h("button", { type: "button", ...more, on: { click: (event) => click(event.currentTarget) } }, words);

/**
 * Ask before something is done; gives what was entered, or null.
 *
 * With `submit` the question stays until that has done it: the faults that it gives, or that the
 * server names, stand beside the fields that they are about.
 *
 * @param {{title: string, text: any, verb: string, isBad?: boolean, isWide?: boolean, fields?: Array<HTMLElement>,
 *   no?: string, submit?: function(object): Promise<?Array<{path: string, message: string}>>}} what
 */
export function confirm({ title, text, verb, isBad = false, isWide = false, fields = [], no = "Do nothing", submit = null }) {
  return new Promise((resolve) => {
    const yes = h("button", { value: "yes", class: isBad ? "bad" : "main" }, verb);
    const wrong = h("div", { class: "wrong", role: "alert" });
    const form = h("form", { method: "dialog" },
      h("h2", { id: "asked" }, title), h("div", {}, text), fields, wrong,
      h("p", { class: "buttons" }, h("button", { value: "no", formnovalidate: true, class: "quiet" }, no), yes));
    const box = h("dialog", { "aria-labelledby": "asked", class: isWide ? "broad" : null }, form);
    const entered = () => Object.fromEntries(new FormData(form));
    // Enter in a field means yes; the button that does nothing comes first for the eye only
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.matches("input")) {
        event.preventDefault();
        form.requestSubmit(yes);
      }
    });
    form.addEventListener("submit", async (event) => {
      if (!submit || event.submitter !== yes) return;
      event.preventDefault();
      yes.disabled = true;
      const faults = await submit(entered()).catch((error) =>
        error.errors?.length ? error.errors : [{ path: "", message: error.message }]);
      yes.disabled = false;
      if (faults) showFaults(form, wrong, faults);
      else box.close("yes");
    });
    box.addEventListener("close", () => {
      const found = box.returnValue === "yes" ? entered() : null;
      box.remove();
      resolve(found);
    });
    document.body.append(box);
    box.showModal();
  });
}

/** Say each fault at the field that its path ends with; those of no field stand below them all. */
function showFaults(form, wrong, faults) {
  for (const old of form.querySelectorAll(".fault")) old.remove();
  for (const old of form.querySelectorAll("[aria-invalid]")) old.removeAttribute("aria-invalid");
  const rest = faults.filter(({ path, message }) => {
    const name = path.replace(/^body\.?/, "");
    const shown = [...form.elements].filter((one) => one.name && one.offsetParent);
    const input = shown.find((one) => one.name === `${name}.${message.split(" ")[0]}`)
      ?? shown.find((one) => one.name === name)
      ?? shown.find((one) => name && (one.name.startsWith(`${name}.`) || name.startsWith(`${one.name}.`)));
    if (!input) return true;
    input.setAttribute("aria-invalid", "true");
    input.parentElement.append(h("span", { class: "fault" }, data(message)));
    return false;
  });
  wrong.replaceChildren(...rest.map((one) => h("p", {}, data(one.message))));
  form.querySelector("[aria-invalid]")?.focus();
}

export const field = (label, name, more = {}) =>
  h("label", { class: `field ${more.wide ?? ""}` }, h("span", {}, label),
    more.options
      ? h("select", { name }, more.options.map(([value, words]) => h("option", { value, selected: value === more.value }, words)))
      : more.rows
        ? h("textarea", { name, autocomplete: "off", spellcheck: "false", rows: more.rows }, more.value)
        : h("input", { name, autocomplete: "off", spellcheck: "false", ...more }));

export const rate = (counts) => {
  const ended = counts.success + counts.failure;
  return ended ? share(counts.failure / ended) : "–";
};
