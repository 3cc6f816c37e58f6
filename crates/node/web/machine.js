// One machine: what it is doing, its screen, what can be done to it, where it comes from.

import { get, ownId, path } from "./api.js";
import { makeCharts } from "./charts.js";
import { h, redraw, setText, terms } from "./dom.js";
import { bytes, moment, PAGE_SIZE, short } from "./format.js";
import { makeHistory } from "./history.js";
import { poll } from "./poll.js";
import { arriving, isLive, showState, stateMark } from "./state.js";
import { teleport } from "./teleport.js";
import * as verbs from "./verbs.js";
import { makeViewer } from "./viewer.js";

const EVERY_MS = 2_000;
/** A history of thousands takes the node a while to read. It is looked at when the machine says that it is another one,
    and now and then for tags that somebody gave on the command line. */
const HISTORY_EVERY_MS = 30_000;

/** Shows the machine in `parent` until it is closed. */
export function openMachine(parent, name) {
  document.title = `${name} – Watari`;
  const page = makePage(name);
  parent.append(page.element);
  let machine = null;
  let list = null;

  const history = poll(async (signal) => {
    if (!machine) return;
    list = await get(path("machines", name, "log"), signal);
    page.show(machine, list);
  }, HISTORY_EVERY_MS);

  const watch = poll(async (signal) => {
    try {
      const before = machine;
      const [own, found] = await Promise.all([ownId(signal), get(path("machines", name), signal)]);
      machine = { ...found, isElsewhere: found.node !== own };
      page.show(machine, list);
      if (historyOf(before) !== historyOf(machine)) history.now();
    } catch (error) {
      if (error.kind === "unknown_machine") page.lose();
      throw error;
    }
  }, EVERY_MS);

  return {
    close() {
      watch.close();
      history.close();
      page.close();
    },
  };
}

/** What becomes another one when there is a new snapshot or another head. */
function historyOf(machine) {
  return machine && [machine.snapshot, machine.epoch].join();
}

function makePage(name) {
  const state = stateMark();
  const reason = h("p", { class: "reason" });
  const bar = makeBar();
  const viewer = makeViewer(name);
  const arrival = makeArrival();
  const facts = h("dl", { class: "facts" });
  const history = makeHistory();
  const charts = makeCharts();
  const gone = h(
    "p",
    { class: "note", hidden: true },
    `There is no machine ${name} on this node any more. `,
    h("a", { href: "#/" }, "All machines"),
  );
  const body = h(
    "div",
    { hidden: true },
    bar.element,
    h(
      "div",
      { class: "stage" },
      viewer.element,
      h("section", { class: "about", "aria-label": "About the machine" }, arrival.element, facts),
    ),
    history.element,
    charts.element,
  );
  const element = h(
    "div",
    {},
    h("div", { class: "headline" }, h("h1", { tabindex: -1 }, name), state),
    reason,
    gone,
    body,
  );
  return {
    element,
    /** `list` is its history, or `null` while that is not known. */
    show(machine, list) {
      gone.hidden = true;
      body.hidden = false;
      showState(state, machine);
      const why = machine.isElsewhere
        ? `It lives on node ${short(machine.node)} now. ${machine.reason}`
        : machine.reason;
      setText(reason, why);
      reason.hidden = !why;
      bar.update(machine);
      arrival.update(machine);
      redraw(facts, machine, describe);
      viewer.update(machine);
      history.show(machine, list);
      charts.show(list);
    },
    lose() {
      gone.hidden = false;
      body.hidden = true;
      viewer.close();
    },
    close() {
      viewer.close();
      history.close();
      charts.close();
    },
  };
}

const BUTTONS = [
  { text: "Start", is: "primary", does: verbs.start, when: (machine) => !isLive(machine) && !machine.isElsewhere },
  { text: "Take it back", does: verbs.takeBack, when: (machine) => machine.isElsewhere },
  { text: "Checkpoint", is: "primary", does: verbs.checkpoint, when: isLive },
  { text: "Pause", does: verbs.pause, when: (machine) => machine.state === "running" },
  { text: "Resume", does: verbs.resume, when: (machine) => machine.state === "paused" },
  { text: "Stop", does: verbs.stop, when: isLive },
  { text: "Kill", is: "danger", does: verbs.kill, when: isLive },
  { text: "Network", does: verbs.network, when: isLive },
  { text: "Teleport", does: teleport, when: isLive },
  { text: "Remove", is: "danger", does: verbs.remove, when: (machine) => !isLive(machine) },
];

/** The buttons for what makes sense now. They stay in the page and are hidden, so that the focus has somewhere to go. */
function makeBar() {
  let latest = null;
  const buttons = BUTTONS.map(({ text, is, does, when }) => {
    const element = h("button", { type: "button", class: is, onclick: () => does(latest) }, text);
    return { element, when, isDangerous: is === "danger" };
  });
  const element = h(
    "div",
    { class: "buttons bar", role: "group", "aria-label": "What can be done" },
    buttons.map((button) => button.element),
  );
  return {
    element,
    update(machine) {
      latest = machine;
      const focused = buttons.findIndex((button) => button.element === document.activeElement);
      for (const button of buttons) button.element.hidden = !button.when(machine);
      if (focused < 0 || !buttons[focused].element.hidden) return;
      // The one that follows undoes it: Pause, Resume. Nobody should find themselves on one that destroys.
      const next = [...buttons.slice(focused), ...buttons].find(
        (button) => !button.element.hidden && !button.isDangerous,
      );
      next?.element.focus();
    },
  };
}

/** How much of a machine that runs already is still on its way. */
function makeArrival() {
  const text = h("p");
  const bar = h("progress", { max: 1, "aria-label": "How much of the machine has arrived" });
  const element = h("div", { class: "arrival", hidden: true }, text, bar);
  return {
    element,
    update(machine) {
      const { absent_bytes, all_bytes } = arriving(machine, PAGE_SIZE);
      element.hidden = absent_bytes === 0;
      setText(text, `${bytes(absent_bytes)} still arriving; it runs meanwhile`);
      bar.value = 1 - Math.min(absent_bytes / all_bytes, 1);
    },
  };
}

function describe(machine) {
  const { instance, origin } = machine;
  const code = (text) => h("code", {}, text);
  return terms([
    ["Generation", machine.generation === null ? "no snapshot yet" : `${machine.generation}`],
    ["Epoch", String(machine.epoch)],
    ["Memory", bytes(machine.memory_bytes)],
    ["CPUs", String(machine.cpus)],
    ["Disks", machine.disk_bytes.map(bytes).join(", ") || "none"],
    [
      "Network cards",
      machine.macs.length > 0
        ? h(
            "span",
            {},
            machine.macs.flatMap((mac, at) => [at > 0 && h("br"), code(mac)]),
          )
        : "none",
    ],
    ["Accelerator", instance && { kvm: "kvm", tcg: "tcg (slower)" }[instance.accelerator]],
    ["Tracker", instance?.tracker],
    [
      "Clone of",
      origin &&
        h(
          "span",
          {},
          h("a", { href: `#/machines/${encodeURIComponent(origin.name)}` }, origin.name),
          " ",
          code(short(origin.snapshot)),
        ),
    ],
    ["Created", moment(machine.created_unix_ms)],
    ["Node", code(short(machine.node))],
    ["Processes", instance && `keeper ${instance.keeper_pid}, QEMU ${instance.qemu_pid}`],
    ["Id", code(machine.id)],
    ["Folder", code(machine.folder)],
  ]);
}
