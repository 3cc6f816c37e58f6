// One snapshot in full, and what can be done with it.

import { h, redraw, terms } from "./dom.js";
import { bytes, count, duration, moment, PAGE_SIZE, short } from "./format.js";
import { clone, forget, restore, tag, untag } from "./snapshot-verbs.js";

/** Makes the part of a row that opens; `show(row)` draws it, `show(null)` closes it. */
export function makeDetail(id) {
  const facts = h("dl", { class: "facts" });
  const buttons = h("div", { class: "buttons" });
  const element = h("div", { id, class: "detail", hidden: true }, buttons, facts);
  return {
    element,
    show(row) {
      element.hidden = row === null;
      if (row === null) return;
      const { machine, snapshot } = row;
      redraw(facts, snapshot, describe);
      redraw(buttons, snapshot.tags, (tags) => [
        button("Restore", () => restore(machine, snapshot)),
        button("Clone", () => clone(machine, snapshot)),
        button("Tag", () => tag(machine, snapshot)),
        ...tags.map((name) => button(`Untag ${name}`, () => untag(machine, name))),
        button("Forget", () => forget(machine, snapshot)),
      ]);
    },
  };
}

function button(text, onclick) {
  return h("button", { type: "button", onclick }, text);
}

function describe(snapshot) {
  const { capture } = snapshot;
  return terms([
    ["Id", h("code", {}, snapshot.id)],
    ["Taken", moment(snapshot.created_unix_ms)],
    ["Message", snapshot.message],
    ["Parent", snapshot.parent && h("code", {}, short(snapshot.parent))],
    ["Branch", snapshot.branch],
    ["Epoch", String(snapshot.epoch)],
    ["Changed", changed(snapshot)],
    ["Stored", capture && bytes(capture.stored_bytes)],
    ["Guest held", capture && duration(capture.pause_ms)],
    ["Took", capture && duration(capture.total_ms)],
    ["Device state", bytes(snapshot.device_state_bytes)],
    ["Taken with", `QEMU ${snapshot.qemu_version}, ${snapshot.accelerator}`],
    ["On node", h("code", {}, short(snapshot.node))],
  ]);
}

/** The regions that changed, which are few. */
function changed({ regions }) {
  const some = regions.filter((region) => region.changed_pages > 0);
  if (some.length === 0) return "nothing";
  return h(
    "ul",
    {},
    some.map(({ name, changed_pages }) =>
      h("li", {}, h("code", {}, name), ` ${count(changed_pages, "page")}, ${bytes(changed_pages * PAGE_SIZE)}`),
    ),
  );
}
