// What can be done with a snapshot of a machine.

import { ask } from "./dialog.js";
import { duration, moment } from "./format.js";
import { work } from "./tasks.js";
import { NAME, NAME_RULE, of, TAG, TAG_RULE } from "./verbs.js";

export async function restore(machine, snapshot, before) {
  const values = await ask({
    title: `Restore ${machine.name}@${snapshot.generation}`,
    text: [
      `${machine.name} goes back to ${describe(snapshot)}, and runs on from there.`,
      "What it leaves behind, all that it is now, is kept as a snapshot first, so that you can come back to it.",
    ],
    fields: [
      {
        name: "discard",
        label: "Discard what it leaves behind",
        type: "checkbox",
        help: "Then everything since the last snapshot is lost for good.",
      },
    ],
    submit: "Restore",
    values: before,
  });
  if (!values) return;
  await work({
    title: `Restore ${machine.name}@${snapshot.generation}`,
    path: of(machine, "restore"),
    body: { rev: rev(snapshot), discard: values.discard },
    tell: (done) =>
      `${machine.name} runs from ${snapshot.generation}, after ${duration(done.ready_ms)}` +
      (done.kept ? `; what it left behind is snapshot ${done.kept.generation}` : ""),
    again: () => restore(machine, snapshot, values),
  });
}

export async function clone(machine, snapshot, before) {
  const values = await ask({
    title: `Clone ${machine.name}@${snapshot.generation}`,
    text: `A new machine that goes on from ${describe(snapshot)}.`,
    fields: [
      { name: "name", label: "Name of the new machine", type: "text", required: true, pattern: NAME, rule: NAME_RULE },
      {
        name: "network",
        label: "Network",
        type: "radio",
        options: [
          ["unplugged", "Unplugged", "its cable is pulled"],
          ["fresh", "Fresh", "a new card with an address of its own"],
          ["same", "Same", "the original’s address: keep them apart"],
        ],
      },
      { name: "start", label: "Start it at once", type: "checkbox", value: true },
    ],
    submit: "Clone",
    values: before,
  });
  if (!values) return;
  const done = await work({
    title: `Clone ${machine.name}@${snapshot.generation} as ${values.name}`,
    path: of(machine, "clone"),
    body: { rev: rev(snapshot), ...values },
    tell: (done) => `${done.name} is ${values.start ? "running" : "there"}, after ${duration(done.ready_ms)}`,
    again: () => clone(machine, snapshot, values),
  });
  if (done) location.hash = `#/machines/${encodeURIComponent(done.name)}`;
}

export async function tag(machine, snapshot, before) {
  const values = await ask({
    title: `Tag ${machine.name}@${snapshot.generation}`,
    text: "A name for this snapshot. If another one has it, that one loses it.",
    fields: [{ name: "tag", label: "Tag", type: "text", required: true, pattern: TAG, rule: TAG_RULE }],
    submit: "Tag",
    values: before,
  });
  if (!values) return;
  await work({
    title: `Tag ${machine.name}@${snapshot.generation}`,
    path: of(machine, "tags"),
    body: { tag: values.tag, rev: rev(snapshot) },
    tell: (done) => `Snapshot ${done.generation} is ${done.tag}`,
    again: () => tag(machine, snapshot, values),
  });
}

export function untag(machine, name) {
  return work({
    title: `Take the tag ${name} away`,
    method: "DELETE",
    path: of(machine, "tags", name),
    tell: () => `Nothing is tagged ${name} any more`,
    again: () => untag(machine, name),
  });
}

export async function forget(machine, snapshot) {
  const values = await ask({
    title: `Forget ${machine.name}@${snapshot.generation}`,
    text: `Takes ${describe(snapshot)} out of the history. Other snapshots stay whole; what only this one needs goes with the next garbage collection.`,
    submit: "Forget",
    danger: true,
  });
  if (!values) return;
  await work({
    title: `Forget ${machine.name}@${snapshot.generation}`,
    method: "DELETE",
    path: of(machine, "snapshots", rev(snapshot)),
    tell: (done) => `Snapshot ${done.generation} is out of the history`,
    again: () => forget(machine, snapshot),
  });
}

/** A snapshot as a revision: by the beginning of its id, which means the same whatever happens meanwhile. All of the id would
    be longer than a revision may be. */
function rev(snapshot) {
  return snapshot.id.slice(0, 40);
}

/** A snapshot in the middle of a sentence. */
function describe(snapshot) {
  const message = snapshot.message ? ` (“${snapshot.message}”)` : "";
  return `snapshot ${snapshot.generation}${message} of ${moment(snapshot.created_unix_ms)}`;
}
