// What can be done to a machine: what each verb asks for, what it sends, and how it says what came of it.

import { path } from "./api.js";
import { ask } from "./dialog.js";
import { bytes, duration } from "./format.js";
import { work } from "./tasks.js";

/** The rules of `MachineName` and of a tag, for the form to check; the node has the last word. */
export const NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,47}";
export const NAME_RULE = "Up to 48 letters, digits, “-”, “_” and “.”, beginning with a letter or digit.";
export const TAG = "(?!\\d+$)(?!\\.)[A-Za-z0-9._\\-]{1,64}";
export const TAG_RULE = "Up to 64 letters, digits, “-”, “_” and “.”, not digits alone.";

/** A machine's path, and what is below it. */
export const of = (machine, ...rest) => path("machines", machine.name, ...rest);

export function start(machine) {
  return work({
    title: machine.state === "suspended" ? `Resume ${machine.name} where it was` : `Start ${machine.name}`,
    path: of(machine, "start"),
    tell: (done) => `${machine.name} runs, after ${duration(done.ready_ms)}`,
    again: () => start(machine),
  });
}

export async function stop(machine, before) {
  const values = await ask({
    title: `Stop ${machine.name}`,
    text: "The guest is asked to power off, and what is in its memory goes with it. A checkpoint before that keeps it.",
    fields: [
      {
        name: "seconds",
        label: "Give up after seconds",
        type: "number",
        min: 1,
        max: 3600,
        required: true,
        value: "60",
      },
    ],
    submit: "Stop",
    values: before,
  });
  if (!values) return;
  await work({
    title: `Stop ${machine.name}`,
    path: of(machine, "stop"),
    body: { limit_ms: Number(values.seconds) * 1000 },
    tell: () => `${machine.name} has powered off`,
    again: () => stop(machine, values),
  });
}

export async function kill(machine) {
  const values = await ask({
    title: `Kill ${machine.name}`,
    text: "It ends at once, as if its power failed. What its guest has not written to a disk is lost, except what is in snapshots.",
    submit: "Kill",
    danger: true,
  });
  if (!values) return;
  await work({
    title: `Kill ${machine.name}`,
    path: of(machine, "kill"),
    tell: () => `${machine.name} has ended`,
    again: () => kill(machine),
  });
}

export function pause(machine) {
  return work({
    title: `Pause ${machine.name}`,
    path: of(machine, "pause"),
    tell: () => `${machine.name} is held`,
    again: () => pause(machine),
  });
}

export function resume(machine) {
  return work({
    title: `Resume ${machine.name}`,
    path: of(machine, "resume"),
    tell: () => `${machine.name} goes on`,
    again: () => resume(machine),
  });
}

/** For a machine that was handed over to a node that is lost. */
export async function takeBack(machine) {
  const values = await ask({
    title: `Take ${machine.name} back`,
    text: [
      `${machine.name} was handed over to another node. It goes on here from what is here of it.`,
      "Only you can say that it does not run there any more. Should it, there will be two of it, and the one here wins.",
    ],
    submit: "Take it back",
    danger: true,
  });
  if (!values) return;
  await work({
    title: `Take ${machine.name} back`,
    path: of(machine, "resume"),
    body: { here: true },
    tell: () => `${machine.name} is this node’s again`,
    again: () => takeBack(machine),
  });
}

export async function checkpoint(machine, before) {
  const values = await ask({
    title: `Checkpoint ${machine.name}`,
    text: "Captures memory, devices and disks as a snapshot. The guest is held for some milliseconds only.",
    fields: [
      { name: "message", label: "Message", type: "text", placeholder: "before the upgrade" },
      {
        name: "tag",
        label: "Tag",
        type: "text",
        pattern: TAG,
        rule: TAG_RULE,
        help: "Optional: a name for the snapshot.",
      },
    ],
    submit: "Checkpoint",
    values: before,
  });
  if (!values) return;
  await work({
    title: `Checkpoint ${machine.name}`,
    path: of(machine, "checkpoint"),
    body: { message: values.message, tag: values.tag || null },
    tell: (done) =>
      `Snapshot ${done.generation}: the guest was held ${duration(done.pause_ms)}, the store grew by ${bytes(done.stored_bytes)}`,
    again: () => checkpoint(machine, values),
  });
}

export async function network(machine, before) {
  const values = await ask({
    title: `Network of ${machine.name}`,
    fields: [
      {
        name: "action",
        label: "Its card",
        type: "radio",
        options: [
          ["plug", "Plug", "the cable is plugged in"],
          ["unplug", "Unplug", "the cable is pulled"],
          ["fresh", "Fresh", "another card with a new address, plugged in"],
        ],
      },
    ],
    submit: "Change",
    values: before,
  });
  if (!values) return;
  const what = { plug: "is plugged in", unplug: "is unplugged", fresh: "has a new card" }[values.action];
  await work({
    title: `Change the network of ${machine.name}`,
    path: of(machine, "network"),
    body: values,
    tell: () => `${machine.name} ${what}`,
    again: () => network(machine, values),
  });
}

export async function remove(machine) {
  const values = await ask({
    title: `Remove ${machine.name}`,
    text: "Its disks and its whole history go, and nothing brings them back. Clones of it stay whole.",
    fields: [
      {
        name: "name",
        label: `Write ${machine.name} to remove it`,
        type: "text",
        required: true,
        rule: `It is called ${machine.name}.`,
        pattern: machine.name.replaceAll(".", "\\.").replaceAll("-", "\\-"),
      },
    ],
    submit: "Remove",
    danger: true,
  });
  if (!values) return;
  const done = await work({
    title: `Remove ${machine.name}`,
    method: "DELETE",
    path: of(machine),
    tell: (done) => `${done.name} is gone; its folder took ${bytes(done.freed_bytes)}`,
    again: () => remove(machine),
  });
  if (done) location.hash = "#/";
}
