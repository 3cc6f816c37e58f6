// The work under way, each piece with its progress, and at the end what came of it.
//
// What succeeded is said and goes after a while; what failed stays, with what helps, until it is dismissed or tried again.

import { act } from "./api.js";
import { h, setText } from "./dom.js";

/** How long what succeeded stays in sight. */
const LINGER_MS = 8_000;

const strip = document.getElementById("tasks");
const said = document.getElementById("said");

/**
 * Does one piece of work through the API. `title` says what it is, `tell(done)` what came of it, `isBad(done)` whether that is
 * bad news nevertheless, `again()` tries once more.
 * Returns the answer, or `undefined` after a failure, which has been shown then.
 */
export async function work({ title, method = "POST", path, body, tell, isBad = () => false, again }) {
  const item = show(title);
  try {
    const done = await act(method, path, body, (progress) => item.progress(progress));
    if (isBad(done)) item.fail(new Error(tell(done)));
    else item.succeed(tell(done));
    return done;
  } catch (error) {
    item.fail(error, again);
    return undefined;
  } finally {
    document.dispatchEvent(new Event("changed"));
  }
}

/** Says something to those who do not see it. */
export function announce(text) {
  // The same text twice is only read twice if it is a change.
  said.textContent = "";
  requestAnimationFrame(() => setText(said, text));
}

function show(title) {
  const step = h("p", { class: "step" });
  const bar = h("progress", { max: 1, "aria-label": title });
  const element = h("article", { class: "task" }, h("h2", {}, title), step, bar);
  // What succeeded before is old news.
  for (const done of strip.querySelectorAll(".done:not(:focus-within)")) done.remove();
  strip.append(element);
  strip.hidden = false;
  announce(title);

  const finish = (kind, ...content) => {
    element.classList.add(kind);
    element.replaceChildren(h("h2", {}, title), ...content);
  };
  return {
    progress: (progress) => move(step, bar, progress),
    succeed(text) {
      finish("done", h("p", {}, text), dismissal(element));
      announce(text);
      setTimeout(() => leave(element), LINGER_MS);
    },
    fail(error, again) {
      const hint = error.hint && h("p", { class: "hint" }, sentence(error.hint));
      const text = h("div", { role: "alert" }, h("p", {}, sentence(error.message)), hint);
      const retry = again && button("Try again", () => (element.remove(), tidy(), again()));
      finish("failed", text, h("p", { class: "buttons" }, retry, dismissal(element)));
    },
  };
}

function move(step, bar, { step: text, done, total }) {
  setText(step, text);
  // Without a value the bar shows that it is not known how much there is.
  if (total > 0) bar.value = Math.min(done / total, 1);
  else bar.removeAttribute("value");
}

function dismissal(element) {
  return button("Dismiss", () => (element.remove(), tidy()));
}

function button(text, onclick) {
  return h("button", { type: "button", onclick }, text);
}

/** Removes what lingered, unless somebody is about to press something in it. */
function leave(element) {
  if (element.matches(":hover, :focus-within")) setTimeout(() => leave(element), LINGER_MS);
  else element.remove();
  tidy();
}

function tidy() {
  strip.hidden = strip.childElementCount === 0;
  // A button that was removed takes the focus with it.
  if (document.activeElement === document.body) document.getElementById("main").focus({ preventScroll: true });
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
