// Sending a running machine to another node.

import { get } from "./api.js";
import { ask } from "./dialog.js";
import { bytes, duration, short } from "./format.js";
import { work } from "./tasks.js";
import { of } from "./verbs.js";

export async function teleport(machine, before) {
  const others = await nodes();
  if (!others) return;
  const values = await ask({
    title: `Teleport ${machine.name}`,
    text: "The machine goes to another node while it runs.",
    fields: [
      { name: "node", label: "To", type: "select", options: others.map((node) => [node.id, label(node)]) },
      {
        name: "way",
        label: "How",
        type: "radio",
        options: [
          ["normal", "All of it first", "it goes on here until nearly everything is there"],
          ["lazy", "The guest first", "it goes on there at once; the rest of its memory and disks follows"],
        ],
      },
    ],
    submit: "Teleport",
    values: before,
  });
  if (!values) return;
  const target = others.find((node) => node.id === values.node);
  await work({
    title: `Teleport ${machine.name} to ${target.name || short(target.id)}`,
    path: of(machine, "teleport"),
    body: { node: values.node, lazy: values.way === "lazy" },
    tell: (done) =>
      `${machine.name} runs on ${target.name || short(target.id)}: held ${duration(done.downtime_ms)}, ` +
      `${duration(done.total_ms)} in all, ${bytes(done.bytes_sent)} sent`,
    again: () => teleport(machine, values),
  });
}

/** The nodes that a machine can go to; `null` where there is none, which has been said then. */
async function nodes() {
  const list = await get("nodes").catch(() => ({ nodes: [] }));
  const others = list.nodes.filter((node) => node.state === "alive");
  if (others.length > 0) return others;
  await ask({
    title: "There is no other node to go to",
    text: "“watari invite” makes a ticket; with “watari join TICKET” another computer joins this one’s mesh.",
    submit: "Understood",
  });
  return null;
}

function label(node) {
  const way = node.rtt_ms === null ? "" : `, ${duration(node.rtt_ms)} away`;
  return `${node.name || short(node.id)}${way}`;
}
