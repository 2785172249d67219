// Keeps a page as it is now: by events where the API has some, else by asking again and again.

import { events } from "./api.js";

const LEAST = 1000; // ms between two reads that events ask for: a flood of them is one
const SHARE = 10; // a read is given so many times the time that it takes: a slow server is not pressed
const KNOWN = 5000; // ms until what an event has shown already is read, too
const WITHOUT = 5000; // ms between two reads where no stream is open
const FIRST = 1000; // ms until a stream that broke is opened again; doubled up to:
const LONGEST = 30000;
const SILENCE = 45000; // ms without a word, where the server says something each 15 s: it is gone

let isPaused = sessionStorage.getItem("aiotrack-paused") === "yes";
let tell = () => {};
let current = null;

export const paused = () => isPaused;

/** Name the function that shows a state: live, polling, paused, away. */
export function onState(function_) {
  tell = function_;
}

export function pause(is) {
  isPaused = is;
  sessionStorage.setItem("aiotrack-paused", is ? "yes" : "no");
  current?.changed();
}

// Makes what reads a page: it asks, notes what went wrong (or that nothing did), and draws.
export const reader = (ask, note, render) => async (signal) => {
  try {
    await ask(signal);
    note(null);
  } catch (error) {
    note(error);
    throw error;
  } finally {
    if (!signal.aborted) render();
  }
};

/**
 * Follow something for as long as a page is open; a page that follows something else ends it.
 *
 * @param {object} what
 * @param {function(AbortSignal): Promise} what.read reads all and shows it; errors are its own to show
 * @param {string} [what.stream] path of the events
 * @param {object} [what.params] query of the events
 * @param {function(object): ?boolean} [what.onEvent] shows what an event carries; true: that was all; null: it is of nothing here
 * @param {number} [what.every] ms between two reads without a stream
 * @param {function(): boolean} [what.isSilent] whether something changes that no event tells: it is read as without a stream
 */
export function follow(what) {
  current?.end();
  current = new Follower(what);
  current.start();
  return current;
}

export function unfollow() {
  current?.end();
  current = null;
}

class Follower {
  constructor({ read, stream = null, params = {}, onEvent = () => false, every = WITHOUT, isSilent = () => false }) {
    Object.assign(this, { read, stream, params, onEvent, every, isSilent });
    this.ended = new AbortController();
    this.opened = null; // the stream that is open, or is being opened
    this.isOpen = false;
    this.isAway = false;
    this.isDone = false; // nothing more will happen: what is followed is over
    this.wait = FIRST;
    this.lastId = null;
    this.timer = null;
    this.reading = null;
    this.readAt = -Infinity;
    this.least = LEAST;
    this.dueAt = Infinity;
    this.onVisible = () => this.changed();
  }

  start() {
    document.addEventListener("visibilitychange", this.onVisible);
    this.refresh();
    this.changed();
  }

  end() {
    this.ended.abort();
    this.opened?.abort();
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.onVisible);
  }

  get rests() {
    return isPaused || document.hidden;
  }

  /** Open or close the stream, as the reader wants it. */
  changed() {
    if (this.ended.signal.aborted) return;
    if (this.rests) {
      this.opened?.abort();
      this.opened = null;
      this.isOpen = false;
      clearTimeout(this.timer);
      this.timer = null;
    } else {
      if (this.stream && !this.opened && !this.isDone) this.listen();
      if (!this.timer && this.readAt > -Infinity) this.refresh();
    }
    this.tell();
  }

  tell() {
    if (this.ended.signal.aborted) return;
    if (isPaused) tell("paused");
    else if (this.isAway) tell("away");
    else tell(this.isOpen || this.isDone ? "live" : "polling", this.every);
  }

  /** Read all, now or when the last time is long enough ago; then again, unless events tell when. */
  async refresh() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.ended.signal.aborted) return;
    if (this.reading) {
      this.isStale = true;
      return;
    }
    const left = this.readAt + this.least - performance.now();
    if (left > 0) {
      this.plan(left);
      return;
    }
    this.readAt = performance.now();
    this.isStale = false;
    this.reading = this.read(this.ended.signal);
    try {
      await this.reading;
      this.isAway = false;
    } catch (error) {
      if (this.ended.signal.aborted) return;
      this.isAway = error.status === 0;
      if (error.status === undefined) console.error(error);
    } finally {
      this.reading = null;
      this.least = Math.max(LEAST, SHARE * (performance.now() - this.readAt));
    }
    this.tell();
    if (this.isStale) this.plan(this.least);
    else if (!this.isDone) this.plan(this.isOpen && !this.isSilent() ? Math.max(this.every, 15000) : this.every);
  }

  plan(wait) {
    if (this.rests || this.ended.signal.aborted) return;
    clearTimeout(this.timer);
    this.dueAt = performance.now() + wait;
    this.timer = setTimeout(() => this.refresh(), wait);
  }

  /** Nothing will change any more. */
  done() {
    this.isDone = true;
    clearTimeout(this.timer);
    this.timer = null;
    this.tell();
  }

  async listen() {
    const mine = (this.opened = new AbortController());
    const signal = AbortSignal.any([mine.signal, this.ended.signal]);
    let watch = null;
    const hear = () => {
      clearTimeout(watch);
      watch = setTimeout(() => {
        mine.abort();
        if (this.opened !== mine) return;
        this.opened = null;
        this.isOpen = false;
        this.changed();
      }, SILENCE);
    };
    try {
      hear();
      const onOpen = () => {
        this.isOpen = true;
        this.isAway = false;
        this.tell();
      };
      for await (const one of events(this.stream, this.params, { signal, lastId: this.lastId, onOpen })) {
        hear();
        this.wait = one.retry ?? FIRST;
        if (one.id !== null) this.lastId = one.id;
        if (one.data) this.heard(one);
      }
    } catch (error) {
      if (signal.aborted) return;
      // what will not be better in a moment is not asked for again soon
      this.wait = [401, 403, 404].includes(error.status) ? LONGEST : Math.min(this.wait * 2, LONGEST);
    } finally {
      clearTimeout(watch);
    }
    if (signal.aborted || this.opened !== mine) return;
    this.isOpen = false;
    this.tell();
    if (this.isDone) return;
    this.refresh();
    setTimeout(() => {
      if (this.opened !== mine || signal.aborted) return;
      this.opened = null;
      this.changed();
    }, this.wait * (0.5 + Math.random() / 2));
  }

  heard(one) {
    if (one.event === "ready") return; // nothing was missed
    let isShown = false;
    try {
      isShown = one.event !== "reset" && this.onEvent(JSON.parse(one.data));
    } catch (error) {
      console.error(error);
    }
    if (isShown === null) return;
    if (!isShown) this.refresh();
    else if (!this.timer || this.dueAt > performance.now() + KNOWN) this.plan(KNOWN);
  }
}
