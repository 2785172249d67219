// Who holds which lock.

import { get, post } from "../api.js";
import { h, show } from "../dom.js";
import { duration, number } from "../format.js";
import { follow, reader } from "../live.js";
import { act, badge, button, confirm, data, executionLink, field, name, problem, say, table, when } from "../parts.js";

export const title = "Locks";

export function open({ body }) {
  let items = null;
  let failure = null;
  let follower = null;

  const read = reader(async (signal) => {
    items = (await get("locks/", {}, signal)).items;
  }, (error) => { failure = error; }, render);

  function render() {
    show(body,
      failure && problem(failure),
      items && h("div", { class: "panel", key: "locks" }, table("Locks that are held", [
        ["Lock", (one) => lockName(one), { class: "grow" }],
        ["Held by", (one) => (one.task_id
          ? [executionLink({ task_id: one.task_id }, name(one.task_name ?? one.task_id), { title: one.task_id }), one.is_lost && [" ", badge("lost")]]
          : "no task")],
        ["Worker", (one) => data(one.worker ?? "–", { class: "data mono" })],
        ["Since", (one) => when(one.since), { class: "num" }],
        ["Lease left", (one) => duration(one.left), { class: "num" }],
        ["Waiting", (one) => number(one.waiting), { class: "num" }],
        ["Fence", (one) => h("span", { class: "mono" }, one.fence), { class: "num" }],
        ["Actions", (one) => button("Release …", (self) => release(self, one), { class: "bad", "aria-label": `Release ${one.key === null ? one.name : one.name.replace(/[^/]*$/, one.key)}` }), { class: "verbs" }],
      ], items, (one) => `${one.name} ${one.fence}`, "No lock is held.")));
  }

  /** A key stands in the name as its digest: it is shown itself. */
  const lockName = (one) => h("span", { class: "mono", title: one.name },
    one.key === null ? data(one.name) : [data(one.name.replace(/[^/]*$/, "")), data(one.key)]);

  async function release(self, one) {
    const wanted = await confirm({
      title: "Release this lock by force?",
      text: [
        h("p", {}, lockName(one), one.task_id && [" is held by ", data(one.task_name ?? one.task_id), "."]),
        h("p", {}, "Its holder is not stopped: it is told that the lock is lost, and somebody else may begin beside it."),
      ],
      verb: "Release it", isBad: true,
      fields: [field("Reason", "reason", { maxlength: 500 })],
    });
    if (!wanted) return;
    const given = { name: one.name, fence: one.fence, ...(wanted.reason ? { reason: wanted.reason } : {}) };
    const done = await act(self, () => post("locks/release", given));
    if (done) say(done.released === false ? "Somebody else holds it by now" : "It is released");
    follower.refresh();
  }

  follower = follow({ read, every: 2000 });
}
