// Who did what.

import { get } from "../api.js";
import { h, show } from "../dom.js";
import { follow, reader } from "../live.js";
import { block, data, field, href, link, problem, table, when } from "../parts.js";

export const title = "Audit";

const FILTERS = ["actor", "action", "target"];

export function open({ body, params }) {
  let answer = null;
  let failure = null;
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } },
    h("div", { class: "line" },
      field("Actor is", "actor", { maxlength: 255 }), field("Action is", "action", { maxlength: 255 }), field("Target is", "target", { maxlength: 500 })));
  let typed = null;
  form.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => {
      location.replace(href("audit", Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value.trim()]))));
    }, 400);
  });
  const rows = h("div", { class: "panel" });
  body.append(form, rows);

  const read = reader(async (signal) => {
    const asked = Object.fromEntries([...FILTERS, "after"].map((name) => [name, params[name]]));
    answer = await get("audit/", asked, signal);
  }, (error) => { failure = error; }, render);

  const isThere = (value) => value !== null && value !== undefined && JSON.stringify(value) !== "{}";

  function render() {
    show(rows,
      failure && problem(failure),
      answer && table("Audit", [
        ["At", (one) => when(one.at), { class: "tight" }],
        ["Actor", (one) => data(one.actor ?? "–")],
        ["Action", (one) => data(one.action)],
        ["Target", (one) => data(one.target, { class: "data mono" }), { class: "grow" }],
        ["Reason", (one) => one.reason && data(one.reason)],
        ["Change", (one) => (isThere(one.before) || isThere(one.after)) && h("details", {}, h("summary", {}, "Before and after"),
          isThere(one.before) && block("Before", one.before), isThere(one.after) && block("After", one.after)), { class: "grow" }],
      ], answer.items, (one, index) => `${one.at} ${one.target} ${index}`, "Nobody did anything that matches."),
      answer && (params.after || answer.next) && h("nav", { class: "pager", "aria-label": "Pages of the list" },
        params.after ? link("First page", "audit", { ...params, after: "" }, null, { class: "button" }) : h("span", {}),
        answer.next && link("Next page", "audit", { ...params, after: answer.next }, null, { class: "button" })));
  }

  function start() {
    for (const name of FILTERS) {
      if (form.elements[name] !== document.activeElement) form.elements[name].value = params[name] ?? "";
    }
    follow({ read, every: 10000 });
  }

  start();
  return {
    update(next) {
      params = next;
      start();
    },
  };
}
