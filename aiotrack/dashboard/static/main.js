// Opens the page that the address names, and holds what stands around it.

import { hasToken, onUnauthorized, setToken } from "./api.js";
import { patterns } from "./charts.js";
import { h, show } from "./dom.js";
import { isUtc, setUtc } from "./format.js";
import { onState, pause, paused, unfollow } from "./live.js";
import { button, confirm, field, href } from "./parts.js";
import * as audit from "./pages/audit.js";
import * as execution from "./pages/execution.js";
import * as executions from "./pages/executions.js";
import * as locks from "./pages/locks.js";
import * as overview from "./pages/overview.js";
import * as queues from "./pages/queues.js";
import * as schedules from "./pages/schedules.js";
import * as settings from "./pages/settings.js";
import * as workers from "./pages/workers.js";

const PAGES = { overview, executions, execution, workers, schedules, queues, locks, settings, audit };

const ICONS = {
  overview: "M2.5 13.5V8.5M6.2 13.5V4.5M9.8 13.5V9.5M13.5 13.5V2.5",
  executions: "M2.5 4h11M2.5 8h11M2.5 12h7",
  workers: "M3 3h10v4H3zM3 9h10v4H3zM5.5 5h.01M5.5 11h.01",
  schedules: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 4.8V8l2.2 1.5",
  queues: "M2.5 8h3v4h-3zM6.5 5h3v7h-3zM10.5 3h3v9h-3z",
  locks: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  settings: "M2.5 5h6M11.5 5h2M2.5 11h2M7.5 11h6M10 3.5v3M6 9.5v3",
  audit: "M4 2.5h8v11H4zM6 5.5h4M6 8h4M6 10.5h2",
};

const THEMES = { auto: "System", light: "Light", dark: "Dark" };

const main = document.getElementById("main");
let opened = null; // {name, id, page}

// ── around the page ────────────────────────────────────────────────────────────────────────────
const nav = document.getElementById("pages");

function showNav(name) {
  const here = name === "execution" ? "executions" : name;
  show(nav, h("ul", {}, Object.keys(ICONS).map((one) =>
    h("li", {}, h("a", { href: href(one), "aria-current": one === here ? "page" : null },
      h("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "icon" }, h("path", { d: ICONS[one] })),
      h("span", {}, PAGES[one].title))))));
}

function theme() {
  const found = localStorage.getItem("aiotrack-theme");
  return found in THEMES ? found : "auto";
}

function showTheme() {
  document.documentElement.dataset.theme = theme();
}

function showChoices() {
  const choose = (name, label, value, options, change) =>
    h("label", { class: "choice" }, h("span", {}, label),
      h("select", { name, on: { change: (event) => change(event.currentTarget.value) } },
        Object.entries(options).map(([one, words]) => h("option", { value: one, selected: one === value }, words))));
  show(document.getElementById("choices"),
    choose("zone", "Times", isUtc() ? "utc" : "local", { local: "Local", utc: "UTC" }, (value) => {
      setUtc(value === "utc");
      route(true);
    }),
    choose("theme", "Colours", theme(), THEMES, (value) => {
      localStorage.setItem("aiotrack-theme", value);
      showTheme();
    }),
    hasToken() && button("Forget the token", () => {
      setToken(null);
      showChoices();
      route(true);
    }, { class: "quiet" }));
}

const STATES = {
  live: ["live", "Live", "changes are shown as they happen"],
  polling: ["polling", "Polling", "asked again and again"],
  paused: ["paused", "Paused", "nothing changes until you go on"],
  away: ["away", "Away", "the server does not answer"],
};

let liveState = "";
const liveLine = h("span", { class: "live", role: "status" });

function showState(state, every) {
  const [kind, word, why] = STATES[state];
  const words = state === "polling" ? `every ${Math.round(every / 1000)} s` : why;
  if (liveState !== state + every) {
    liveState = state + every;
    liveLine.className = `live ${kind}`;
    liveLine.title = words;
    liveLine.replaceChildren(h("span", { class: "dot", "aria-hidden": "true" }), word,
      h("span", { class: "only-read" }, `: ${words}`));
  }
  pauseButton.textContent = paused() ? "Go on" : "Pause";
  pauseButton.ariaLabel = paused() ? "Go on with live changes" : "Pause live changes";
}

const pauseButton = button("Pause", () => pause(!paused()), { class: "quiet" });

// ── pages ───────────────────────────────────────────────────────────────────────────────────────
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id = null] = path.split("/");
  const params = {};
  for (const [key, value] of new URLSearchParams(query)) {
    if (Object.hasOwn(params, key)) params[key] = [params[key], value].flat();
    else params[key] = value;
  }
  let given = id;
  try {
    given = id === null ? null : decodeURIComponent(id);
  } catch {
    // what is no address is taken as it stands
  }
  return { name: Object.hasOwn(PAGES, name) ? name : name === "" ? "overview" : null, id: given, params };
}

/** Show what the address names; a page that is open already is told what changed. */
function route(anew = false) {
  const { name, id, params } = address();
  showNav(name);
  if (!anew && opened && opened.name === name && opened.id === id && opened.page?.update) {
    opened.page.update(params);
    return;
  }
  unfollow();
  const isFirst = opened === null;
  const title = name === null ? "No such page" : PAGES[name].title;
  const heading = h("h1", { tabindex: "-1" }, title);
  const body = h("div", { class: `page ${name}` });
  const actions = h("div", { class: "actions" });
  main.replaceChildren(
    h("div", { class: "top" }, heading, actions, h("div", { class: "following" }, liveLine, pauseButton)), body);
  document.title = `${title} · aiotrack`;
  liveLine.parentElement.hidden = name === null;
  opened = { name, id, page: null };
  if (name === null) {
    body.append(h("p", {}, "There is no page at this address. ", h("a", { href: href("overview") }, "To the overview")));
  } else {
    opened.page = PAGES[name].open({ body, heading, actions, id, params }) ?? null;
  }
  if (!isFirst && !anew) {
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

// ── the token ───────────────────────────────────────────────────────────────────────────────────
let asked = null;

onUnauthorized(() => {
  asked ??= confirm({
    title: "A token is needed",
    text: h("p", {}, hasToken() ? "Nobody has the token that was sent." : "The API wants to know who asks: give a token, or sign in where it belongs to.",
      " A token is kept for this tab only, until you close it."),
    verb: "Open",
    no: "Not now",
    fields: [field("Token", "token", { type: "password", required: true, minlength: 16, maxlength: 500, autofocus: true })],
  }).then((found) => {
    setTimeout(() => (asked = null), found ? 0 : 60000); // who said no is left alone for a while
    if (found === null) return false;
    setToken(found.token.trim());
    showChoices();
    setTimeout(() => route(true)); // all of the page, its stream too
    return true;
  });
  return asked;
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the page's
  main.focus();
});
document.body.append(patterns());
showTheme();
showChoices();
onState(showState);
window.addEventListener("hashchange", () => route());
route();
