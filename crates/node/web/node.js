// The node itself: who it is, whom it knows, what is wrong with its computer, and how its store is kept in order.

import { get } from "./api.js";
import { makeDoctor } from "./doctor.js";
import { h, redraw, terms } from "./dom.js";
import { bytes, duration, short } from "./format.js";
import { poll } from "./poll.js";
import { makeUpkeep } from "./upkeep.js";

const EVERY_MS = 5_000;

/** Shows the node in `parent` until it is closed. */
export function openNode(parent) {
  document.title = "Node – Watari";
  const facts = h("dl", { class: "facts" });
  const mesh = h("ul", { class: "nodes" });
  parent.append(
    h("div", { class: "headline" }, h("h1", { tabindex: -1 }, "Node")),
    facts,
    h("section", {}, h("h2", {}, "Mesh"), mesh),
    makeUpkeep(),
    makeDoctor(),
  );
  const watch = poll(async (signal) => {
    const [node, { nodes }] = await Promise.all([get("node", signal), get("nodes", signal)]);
    redraw(facts, node, describe);
    redraw(mesh, nodes, (all) => all.map(member));
  }, EVERY_MS);
  return { close: () => watch.close() };
}

function describe(node) {
  return terms([
    ["Id", h("code", {}, node.node_id)],
    ["Version", node.version],
    ["Home", h("code", {}, node.home)],
    ["Process", String(node.pid)],
  ]);
}

function member({ id, name, addr, state, rtt_ms, version, machines, store_bytes }) {
  return h(
    "li",
    {},
    h(
      "div",
      { class: "title" },
      h("h3", {}, name || short(id)),
      h("span", { class: `member ${state}` }, state === "here" ? "this node" : state),
    ),
    h(
      "dl",
      { class: "facts" },
      terms([
        ["Id", h("code", {}, short(id))],
        ["Address", addr && h("code", {}, addr)],
        ["There and back", rtt_ms === null ? null : duration(rtt_ms)],
        ["Version", version],
        ["Store", store_bytes === null ? null : bytes(store_bytes)],
        [
          "Machines",
          machines === null
            ? null
            : machines.map((machine) => `${machine.name} (${machine.state})`).join(", ") || "none",
        ],
      ]),
    ),
  );
}
