// What a machine is doing, as a shape and a word: never as a colour alone.

import { h, redraw, svg } from "./dom.js";

const SHAPES = {
  running: "M5 3L13 8L5 13Z",
  paused: "M4 3H7V13H4ZM9 3H12V13H9Z",
  suspended: "M11 2.5A6 6 0 1 0 13.5 10A5 5 0 0 1 11 2.5Z",
  stopped: "M4 4H12V12H4Z",
  crashed: "M3.2 4.6L4.6 3.2L8 6.6L11.4 3.2L12.8 4.6L9.4 8L12.8 11.4L11.4 12.8L8 9.4L4.6 12.8L3.2 11.4L6.6 8Z",
};

/** Whether a machine has processes, and so a screen. */
export function isLive(machine) {
  return machine.state === "running" || machine.state === "paused";
}

/** Fills an element with a machine's state. */
export function showState(element, { state }) {
  redraw(element, state, () => [
    svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: SHAPES[state] ?? SHAPES.stopped })),
    state,
  ]);
  element.className = `state ${state}`;
}

export function stateMark() {
  return h("span", { class: "state" });
}

/** Bytes of a machine that lie in the store only, or are still on their way from another node; and all it has. */
export function arriving(machine, page_size) {
  const { absent_ram_pages = 0, absent_disk_pages = 0 } = machine.instance ?? {};
  const all = machine.disk_bytes.reduce((sum, size) => sum + size, machine.memory_bytes);
  return { absent_bytes: (absent_ram_pages + absent_disk_pages) * page_size, all_bytes: all };
}
