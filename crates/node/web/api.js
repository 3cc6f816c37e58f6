// Requests to the node, its errors, and whether it answers at all.
//
// The browser sends the page's cookie by itself; nothing here knows a token.

const NDJSON = "application/x-ndjson";

/** An error of the API: its kind, what happened, and what helps. */
export class Failure extends Error {
  constructor({ kind, message, hint }) {
    super(message);
    this.kind = kind;
    this.hint = hint ?? "";
  }
}

/** Fires `change` whenever its `state` does: `up`, `down` (nothing answers) or `locked` (who asks is not known). */
export const connection = new (class extends EventTarget {
  state = "up";

  set(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
})();

/** What a `GET` answers. */
export async function get(path, signal) {
  const answer = await request(path, { signal });
  return answer.json();
}

// A line that is dead without a word is not waited for longer than this, in milliseconds.
const PATIENCE = 5000;

/**
 * Whether the node answers, be it with a refusal. A WebSocket is tried again only when it does: Firefox lets one wait longer with
 * each that failed before, up to a minute.
 */
export function isThere() {
  return get("node", AbortSignal.timeout(PATIENCE)).then(() => true, (error) => error.kind !== "no_daemon");
}

/**
 * Does something and returns what came of it. `progress` hears `{step, done, total}` on the way. Leaving the page does not
 * end it: the node carries through what it began.
 */
export async function act(method, path, body, progress) {
  const headers = { Accept: NDJSON, "Content-Type": "application/json" };
  const answer = await request(path, { method, headers, body: JSON.stringify(body ?? {}) });
  if (!answer.headers.get("Content-Type")?.startsWith(NDJSON)) return answer.json();
  for await (const reply of lines(answer.body)) {
    if (reply.progress) progress?.(reply.progress);
    else if (reply.error) throw new Failure(reply.error);
    else return reply.done;
  }
  throw interrupted();
}

let own = null;

/** The node's own id, asked for once. */
export async function ownId(signal) {
  own ??= (await get("node", signal)).node_id;
  return own;
}

/** A path of several parts, each of which may hold anything. */
export function path(...parts) {
  return parts.map(encodeURIComponent).join("/");
}

async function request(path, options) {
  const answer = await fetch(`/api/v1/${path}`, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (answer === null || isOfAProxy(answer)) {
    connection.set("down");
    throw new Failure({ kind: "no_daemon", message: "The node does not answer", hint: "`watari up` starts it" });
  }
  connection.set(answer.status === 401 ? "locked" : "up");
  if (!answer.ok) throw await failure(answer);
  return answer;
}

/** Whether something in front of the node says that it is not there; the node's own errors are JSON. */
function isOfAProxy(answer) {
  return [502, 503, 504].includes(answer.status) && !answer.headers.get("Content-Type")?.includes("json");
}

async function failure(answer) {
  try {
    return new Failure((await answer.json()).error);
  } catch {
    // Not the API's own words: a refusal at the door, or something between us and the node.
    return new Failure({ kind: "internal", message: `The node answered ${answer.status} ${answer.statusText}`.trim() });
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole.filter(Boolean).map((line) => JSON.parse(line));
  }
}

function interrupted() {
  return new Failure({
    kind: "no_daemon",
    message: "The node stopped answering before this was done",
    hint: "see whether it happened before you try again",
  });
}
