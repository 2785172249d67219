// What is set, and which layer won; the keys that have rows may be changed here.

import { get, put, remove } from "../api.js";
import { h, show } from "../dom.js";
import { follow, reader } from "../live.js";
import { act, button, confirm, data, field, problem, say, table } from "../parts.js";

export const title = "Settings";

export function open({ body }) {
  let items = null;
  let failure = null;
  let follower = null;
  let sought = "";
  const search = h("form", { class: "filters", role: "search", "aria-label": "Filter", on: { submit: (event) => event.preventDefault() } },
    h("div", { class: "line" }, field("Key contains", "key", { type: "search", maxlength: 100 })));
  search.addEventListener("input", () => {
    sought = search.elements.key.value.trim().toLowerCase();
    render();
  });
  const rows = h("div", { class: "panel" });
  body.append(search, rows);

  const read = reader(async (signal) => {
    items = (await get("settings/", {}, signal)).items;
    items.sort((one, other) => other.is_settable - one.is_settable); // what can be set comes first
  }, (error) => { failure = error; }, render);

  const shown = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));

  function render() {
    show(rows,
      failure && problem(failure),
      items && table("Settings", [
        ["Key", (one) => data(one.key, { class: "data mono" })],
        ["Value", (one) => data(shown(one.value), { class: "data mono" }), { class: "grow" }],
        ["From", (one) => [one.layer, one.source && ` (${one.source})`], { class: "tight" }],
        ["Default", (one) => data(shown(one.layers.default), { class: "data mono small" })],
        ["Actions", verbs, { class: "verbs" }],
      ], items.filter((one) => one.key.toLowerCase().includes(sought)), (one) => one.key, "No key contains this."));
  }

  const verbs = (one) => one.is_settable && h("span", { class: "buttons" },
    button("Change …", (self) => change(self, one), { "aria-label": `Change ${one.key}` }),
    one.layer === "global" && button("Unset", (self) => unset(self, one), { class: "quiet", "aria-label": `Unset ${one.key}` }));

  async function change(self, one) {
    const wanted = await confirm({
      title: `Change ${one.key}`,
      text: h("p", {}, "For all, or for what one user sends; a user's own value comes first."),
      verb: "Change",
      fields: [
        field("Value (0: at once, -1: never)", "value", { type: "number", step: "any", required: true, value: one.value }),
        field("User (empty: all)", "user", { maxlength: 255 }),
      ],
    });
    if (!wanted) return;
    const whose = wanted.user ? { scope: "user", user: wanted.user } : { scope: "global" };
    const done = await act(self, () => put(`settings/${encodeURIComponent(one.key)}`, { value: Number(wanted.value), ...whose }));
    if (done) say(`${one.key} is changed`);
    follower.refresh();
  }

  async function unset(self, one) {
    const done = await act(self, () => remove(`settings/${encodeURIComponent(one.key)}`));
    if (done) say(`${one.key} is as it was set otherwise`);
    follower.refresh();
  }

  follower = follow({ read, every: 15000 });
}
