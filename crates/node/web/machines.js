// The node's machines, each as a card.

import { get, ownId } from "./api.js";
import { create } from "./create.js";
import { closeKept, h, keep, redraw, setText } from "./dom.js";
import { bytes, count, PAGE_SIZE, short } from "./format.js";
import { poll } from "./poll.js";
import { arriving, isLive, showState, stateMark } from "./state.js";
import { Thumbnails } from "./thumbnails.js";

const EVERY_MS = 2_000;

/** Shows the list in `parent` until it is closed. */
export function openMachines(parent) {
  document.title = "Machines – Watari";
  const thumbnails = new Thumbnails();
  const note = h("div", { class: "note" }, "Asking the node …");
  const cards = h("ul", { class: "cards" });
  parent.append(
    h(
      "div",
      { class: "headline" },
      h("h1", { tabindex: -1 }, "Machines"),
      h("button", { type: "button", class: "primary", onclick: () => create() }, "Create a machine"),
    ),
    note,
    cards,
  );
  const watch = poll(async (signal) => {
    const [own, { machines }] = await Promise.all([ownId(signal), get("machines", signal)]);
    keep(
      cards,
      machines.map((machine) => ({ ...machine, isElsewhere: machine.node !== own })),
      (machine) => machine.name,
      () => card(thumbnails),
    );
    redraw(note, machines.length, none);
    note.hidden = machines.length > 0;
  }, EVERY_MS);
  return {
    close() {
      watch.close();
      closeKept(cards);
      thumbnails.close();
    },
  };
}

function none() {
  return [
    h("p", {}, "There are no machines on this node yet."),
    h(
      "p",
      {},
      "“Create a machine” makes one; so does ",
      h("code", {}, "watari create NAME --demo"),
      " on the command line.",
    ),
  ];
}

function card(thumbnails) {
  const link = h("a");
  const state = stateMark();
  const reason = h("p", { class: "reason" });
  const size = h("p", { class: "soft" });
  const history = h("p", { class: "soft" });
  const picture = thumbnails.add();
  const words = h(
    "div",
    { class: "words" },
    h("div", { class: "title" }, h("h2", {}, link), state),
    reason,
    history,
    size,
  );
  const element = h("li", { class: "card" }, picture.element, words);
  return {
    element,
    close: picture.close,
    update(machine) {
      setText(link, machine.name);
      link.href = `#/machines/${encodeURIComponent(machine.name)}`;
      showState(state, machine);
      setText(reason, machine.reason);
      reason.hidden = !machine.reason;
      setText(history, lineage(machine));
      setText(size, equipment(machine));
      picture.show(isLive(machine) ? machine.name : null);
      element.classList.toggle("dark", !isLive(machine));
    },
  };
}

function lineage({ generation, epoch, origin, isElsewhere, node }) {
  if (isElsewhere) return `lives on node ${short(node)} now`;
  const at = generation === null ? "no snapshot yet" : `generation ${generation}, epoch ${epoch}`;
  return origin ? `${at}, a clone of ${origin.name}` : at;
}

function equipment(machine) {
  const { absent_bytes } = arriving(machine, PAGE_SIZE);
  const all = `${bytes(machine.memory_bytes)} of memory, ${count(machine.cpus, "CPU")}`;
  return absent_bytes > 0 ? `${all}, ${bytes(absent_bytes)} still arriving` : all;
}
