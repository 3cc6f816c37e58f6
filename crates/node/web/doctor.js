// What Watari needs of the node's computer, tested for real, and how to mend what is missing.

import { get } from "./api.js";
import { h } from "./dom.js";
import { announce } from "./tasks.js";

const WORDS = { ok: "ok", degraded: "degraded", broken: "broken" };

export function makeDoctor() {
  const summary = h("p", { class: "soft" });
  const checks = h("ul", { class: "checks" });
  const button = h("button", { type: "button", onclick: () => examine(true) }, "Test again");
  const element = h("section", {}, h("div", { class: "headline" }, h("h2", {}, "Doctor"), button), summary, checks);

  async function examine(isAsked) {
    // Not `disabled`: that would take the focus away from somebody who just pressed it.
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    summary.textContent = "Testing the node’s computer …";
    try {
      const found = (await get("doctor")).checks;
      checks.replaceChildren(...[...found].sort(worstFirst).map(item));
      summary.textContent = verdict(found);
    } catch (error) {
      summary.textContent = `The tests could not be done: ${error.message}`;
    }
    button.removeAttribute("aria-disabled");
    if (isAsked) announce(summary.textContent);
  }

  examine(false);
  return element;
}

/** Otherwise in the order in which they were done. */
function worstFirst(a, b) {
  const order = Object.keys(WORDS);
  return order.indexOf(b.status) - order.indexOf(a.status);
}

function verdict(checks) {
  const bad = checks.filter((check) => check.status !== "ok").length;
  return bad === 0
    ? `All ${checks.length} checks are as they should be.`
    : `${bad} of ${checks.length} checks are not as they should be.`;
}

function item({ name, status, detail, fix }) {
  return h(
    "li",
    {},
    h("h3", {}, name),
    h("span", { class: `check ${status}` }, WORDS[status] ?? status),
    h("p", {}, detail),
    fix && h("p", { class: "hint" }, `To mend it: ${fix}`),
  );
}
