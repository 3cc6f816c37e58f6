// Making a machine.

import { ask } from "./dialog.js";
import { bytes, count } from "./format.js";
import { work } from "./tasks.js";
import { NAME, NAME_RULE } from "./verbs.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** The daemon has a working folder of its own. */
const PATH = "/.*";
const PATH_RULE = "The full path of a file on the node’s computer.";

export async function create(before) {
  const isKernel = (values) => values.from === "kernel";
  const values = await ask({
    title: "Create a machine",
    fields: [
      { name: "name", label: "Name", type: "text", required: true, pattern: NAME, rule: NAME_RULE },
      {
        name: "from",
        label: "Boots from",
        type: "radio",
        options: [
          ["demo", "The demo", "a small Linux, made on the spot"],
          ["disk", "A disk image", "raw or qcow2; it is copied"],
          ["kernel", "A Linux kernel", "loaded directly"],
        ],
      },
      {
        name: "kernel",
        label: "Kernel",
        type: "text",
        required: true,
        pattern: PATH,
        rule: PATH_RULE,
        placeholder: "/boot/vmlinuz",
        when: isKernel,
      },
      {
        name: "initrd",
        label: "Initial ramdisk (optional)",
        type: "text",
        pattern: PATH,
        rule: PATH_RULE,
        when: isKernel,
      },
      {
        name: "image",
        label: "Image",
        type: "text",
        required: true,
        pattern: PATH,
        rule: PATH_RULE,
        placeholder: "/srv/debian.qcow2",
        help: "A file on the node’s computer, with its full path.",
        when: (values) => values.from === "disk",
      },
      {
        name: "append",
        label: "Kernel command line (optional)",
        type: "text",
        when: (values) => values.from !== "disk",
      },
      { name: "memory", label: "Memory, MiB", type: "number", min: 32, placeholder: "default", isNarrow: true },
      { name: "cpus", label: "CPUs", type: "number", min: 1, max: 255, placeholder: "1", isNarrow: true },
      { name: "disk", label: "Disk, GiB", type: "number", min: 1, placeholder: "default", isNarrow: true },
    ],
    submit: "Create",
    values: before,
  });
  if (!values) return;
  const machine = await work({
    title: `Create ${values.name}`,
    path: "machines",
    body: request(values),
    tell: (done) => `${done.name} has ${bytes(done.memory_bytes)} of memory and ${count(done.cpus, "CPU")}`,
    again: () => create(values),
  });
  if (machine) location.hash = `#/machines/${encodeURIComponent(machine.name)}`;
}

function request(values) {
  const number = (text, unit) => (text ? Number(text) * unit : null);
  return {
    name: values.name,
    boot: boot(values),
    image: values.image ?? null,
    memory_bytes: number(values.memory, MIB),
    cpus: number(values.cpus, 1),
    disk_bytes: number(values.disk, GIB),
  };
}

function boot({ from, kernel, initrd, append }) {
  if (from === "kernel") return { from, kernel, initrd: initrd || null, append };
  return from === "demo" ? { from, append } : { from };
}
