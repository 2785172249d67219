// Speaks with the REST API. Where it is, index.html says; the token is kept for this tab only.

const BASE = new URL(
  document.querySelector('meta[name="aiotrack-api"]').content.replace(/\/?$/, "/"),
  document.baseURI,
);
const TOKEN = "aiotrack-token";
const PATIENCE = 15000; // ms for an answer
const WORK = 60000; // ms for what acts on many

let ask = async () => false;

/** Name the function that asks the reader for a token when the API wants one; gives whether he has. */
export function onUnauthorized(function_) {
  ask = function_;
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** What the API refused, with every fault that it named. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || `the server answered ${status}`);
    this.status = status;
    this.code = body?.code ?? "unknown";
    this.errors = body?.errors ?? [];
    this.faults = (body?.errors ?? []).map((one) => (one.path ? `${one.path}: ${one.message}` : one.message));
  }
}

/** Make a query of an object: lists are repeated, what is empty is left out. */
export function query(given) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(given ?? {})) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") found.append(name, one);
    }
  }
  const text = found.toString();
  return text ? `?${text}` : "";
}

/** The path of an execution by its task_id; null: browsers resolve dots, so that no path has it. */
export const pathOf = (taskId) =>
  taskId === "." || taskId === ".." ? null : `executions/by-task-id/${encodeURIComponent(taskId)}/`;

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function request(method, path, { params, body, signal, isText = false } = {}, isSecond = false) {
  const patience = method === "GET" ? PATIENCE : WORK;
  const limit = AbortSignal.timeout(patience);
  let answer;
  try {
    answer = await fetch(new URL(path + query(params), BASE), {
      method,
      headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    const detail = limit.aborted ? `no answer within ${patience / 1000} s` : "the server cannot be reached";
    throw new Problem(0, { detail, code: "unreachable" });
  }
  if (answer.status === 401 && !isSecond && (await ask())) {
    return request(method, path, { params, body, signal, isText }, true);
  }
  const text = await answer.text();
  if (isText && answer.ok) return text;
  let told = null;
  try {
    told = text ? JSON.parse(text) : null;
  } catch {
    if (answer.ok) throw new Problem(answer.status, { detail: "this is not the API of aiotrack" });
  }
  if (!answer.ok) throw new Problem(answer.status, told);
  return told;
}

export const get = (path, params, signal) => request("GET", path, { params, signal });
export const post = (path, body, params) => request("POST", path, { body: body ?? {}, params });
export const put = (path, body) => request("PUT", path, { body });
export const remove = (path, params) => request("DELETE", path, { params });

/** Let the reader keep what the API answers as a file; a plain link could not send the token. */
export async function save(path, params, name) {
  const text = await request("GET", path, { params, isText: true });
  const place = URL.createObjectURL(new Blob([text]));
  const anchor = document.createElement("a");
  anchor.href = place;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(place), PATIENCE);
}

/**
 * Open a stream of server-sent events; EventSource could not send the token.
 *
 * @yields {{event: string, data: string, id: string|null, retry: number|null}}
 */
export async function* events(path, params, { signal, lastId, onOpen }) {
  const more = lastId ? { "Last-Event-ID": lastId } : {};
  const answer = await fetch(new URL(path + query(params), BASE), {
    headers: headers({ Accept: "text/event-stream", ...more }),
    signal,
    credentials: "same-origin",
  });
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
  onOpen();
  if (answer.status === 204) return; // it is over, and we have its last state
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) yield parse(block);
  }
}

function parse(block) {
  const found = { event: "message", data: "", id: null, retry: null };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (name === "data") found.data += (found.data ? "\n" : "") + value;
    else if (name === "event" || name === "id") found[name] = value;
    else if (name === "retry" && /^\d+$/.test(value)) found.retry = Number(value);
  }
  return found;
}
