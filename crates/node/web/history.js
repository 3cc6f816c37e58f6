// A machine's history as a graph: a row for each snapshot, the newest first, its lanes drawn beside it.
//
// Each row draws its own piece of the graph, so that rows can grow when they are opened, and only those that are shown are
// drawn: the newest hundred, and older ones a hundred at a time.

import { closeKept, h, keep, redraw, setText, svg, unseen } from "./dom.js";
import { brief, bytes, duration, moment } from "./format.js";
import { drawGraph, measure } from "./graph.js";
import { layOut } from "./lanes.js";
import { deltaBytes, pauseMs } from "./series.js";
import { makeDetail } from "./snapshot.js";

const AT_ONCE = 100;
/** The row for what the machine is now, which is no snapshot yet. */
const NOW = "now";

/** Makes the history of one machine; `show(machine, list)` draws it. */
export function makeHistory() {
  const rows = h("ol", { class: "rows" });
  const note = h("p", { class: "note" }, "Reading the history …");
  const damage = h("ul", { class: "damage" });
  const more = h("button", { type: "button", hidden: true, onclick: () => showMore() });
  const head = h(
    "p",
    { class: "columns", "aria-hidden": "true", hidden: true },
    ["Snapshot", "Taken", "Delta", "Stored", "Held"].map((text) => h("span", {}, text)),
  );
  const element = h("section", { class: "history" }, h("h2", {}, "History"), note, damage, head, rows, more);
  let limit = AT_ONCE;
  let latest = null;

  function showMore() {
    const first = limit;
    limit += AT_ONCE;
    draw();
    // The button may be gone; go on reading where the new rows begin.
    rows.children[first]?.querySelector("button")?.focus();
  }

  function draw() {
    const { machine, list } = latest;
    const points = withNow(list.snapshots);
    const layout = layOut(points);
    const tips = branchTips(list.snapshots);
    const shown = points
      .slice(0, limit)
      .map((point, at) => ({ ...point, machine, layout: layout[at], isTip: tips.has(point.id) }));
    const { spacing, width } = measure(shown, element.clientWidth);
    rows.style.setProperty("--graph", `${width}px`);
    keep(
      rows,
      shown.map((row) => ({ ...row, spacing })),
      (row) => row.id,
      makeRow,
    );
    head.hidden = rows.hidden = list.snapshots.length === 0;
    setText(
      note,
      list.snapshots.length > 0 ? "" : `There are no snapshots yet. A checkpoint makes one while ${machine.name} runs.`,
    );
    note.hidden = list.snapshots.length > 0;
    redraw(damage, list.damaged ?? [], (lines) => lines.map((line) => h("li", {}, `Not listed: ${line}`)));
    const left = points.length - shown.length;
    more.hidden = left === 0;
    setText(more, `Show ${Math.min(left, AT_ONCE)} older of ${left}`);
  }

  return {
    element,
    show(machine, list) {
      const isSame = latest?.list === list && latest.machine.state === machine.state;
      latest = { machine, list };
      if (list && !isSame) draw();
    },
    close: () => closeKept(rows),
  };
}

/** Every snapshot, below what the machine is now, which descends from the head. */
function withNow(snapshots) {
  const points = snapshots.map((snapshot) => ({ id: snapshot.id, parent: snapshot.parent, snapshot }));
  const head = snapshots.find((snapshot) => snapshot.head);
  return head ? [{ id: NOW, parent: head.id, head }, ...points] : points;
}

/** The newest snapshot of each branch, where there is more than one. */
function branchTips(snapshots) {
  const tips = new Map();
  for (const { branch, id } of snapshots) {
    if (!tips.has(branch)) tips.set(branch, id);
  }
  return new Set(tips.size > 1 ? tips.values() : []);
}

function makeRow({ id }) {
  const graph = svg("svg", { class: "graph", "aria-hidden": "true" });
  const part = id === NOW ? makeNow() : makeSnapshot(id);
  const element = h("li", { class: id === NOW ? "row now" : "row" }, graph, part.element);
  return {
    element,
    update(row) {
      redraw(graph, pictured(row), drawGraph);
      part.update(row);
    },
  };
}

/** All that a row's piece of the graph depends on. */
function pictured({ id, layout, spacing, snapshot }) {
  return { layout, spacing, isNow: id === NOW, isHead: snapshot?.head === true };
}

function makeNow() {
  const text = h("p", { class: "line" });
  return {
    element: text,
    update: ({ machine, head }) => setText(text, `Now: ${machine.state}, on from ${head.generation}`),
  };
}

function makeSnapshot(id) {
  const line = h("div", { class: "line" });
  const detail = makeDetail(`detail-${id}`);
  let isOpen = false;
  let latest = null;
  const toggle = h("button", {
    type: "button",
    class: "toggle",
    "aria-expanded": "false",
    "aria-controls": `detail-${id}`,
    onclick: flip,
  });
  const cells = h("div", { class: "cells" });
  line.append(toggle, cells);

  function flip() {
    isOpen = !isOpen;
    toggle.setAttribute("aria-expanded", isOpen);
    detail.show(isOpen ? latest : null);
  }

  return {
    element: h("div", {}, line, detail.element),
    update(row) {
      latest = row;
      redraw(toggle, { ...row.snapshot, isTip: row.isTip }, title);
      redraw(cells, row.snapshot, figures);
      if (isOpen) detail.show(row);
    },
  };
}

function title({ generation, message, tags, head, branch, isTip }) {
  const chips = [
    head && h("span", { class: "chip head" }, unseen(", "), "head"),
    ...tags.map((tag) => h("span", { class: "chip" }, unseen(", tag "), tag)),
    isTip && h("span", { class: "chip branch" }, unseen(", branch "), branch),
  ].filter(Boolean);
  return [
    h("span", { class: "generation" }, unseen("Snapshot "), String(generation), unseen(": ")),
    h(
      "span",
      {},
      h("span", { class: message ? null : "soft" }, message || "no message"),
      chips.flatMap((chip) => [" ", chip]),
    ),
  ];
}

function figures(snapshot) {
  const cell = (term, value) =>
    h(
      "span",
      { class: value === null ? "empty" : null },
      unseen(`, ${term} `),
      h("span", { class: "label", "aria-hidden": "true" }, term),
      value ?? "–",
    );
  const taken = h(
    "time",
    { datetime: new Date(snapshot.created_unix_ms).toISOString(), title: moment(snapshot.created_unix_ms) },
    brief(snapshot.created_unix_ms),
  );
  const stored = snapshot.capture?.stored_bytes ?? null;
  const pause = pauseMs(snapshot);
  return [
    cell("taken", taken),
    cell("delta", bytes(deltaBytes(snapshot))),
    cell("stored", stored === null ? null : bytes(stored)),
    cell("held", pause === null ? null : duration(pause)),
  ];
}
