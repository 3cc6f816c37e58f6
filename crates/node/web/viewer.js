// A running machine's screen and console, as two tabs. What shows them comes from the server, as modules of their own.

import { h, redraw } from "./dom.js";
import { isLive } from "./state.js";

const TABS = [
  { id: "screen", text: "Screen", open: async (...what) => (await import("/screen/screen.js")).openScreen(...what) },
  {
    id: "console",
    text: "Console",
    open: async (...what) => (await import("/console/console.js")).openConsole(...what),
  },
];

/** Makes the viewer of one machine. `update(machine)` opens what is looked at while the machine runs, and closes it after. */
export function makeViewer(name) {
  const views = TABS.map((tab) => makeView(tab, name));
  const list = h(
    "div",
    { role: "tablist", "aria-label": "What to look at" },
    views.map((view) => view.tab),
  );
  const alone = h(
    "a",
    { target: "_blank", rel: "noopener" },
    "In a window of its own",
  );
  const element = h(
    "section",
    { class: "viewer", "aria-label": "Screen and console" },
    h("div", { class: "tabs" }, list, alone),
    views.map((view) => view.panel),
  );
  let current = views[0];
  let run = null;

  function choose(view, isByKey) {
    current = view;
    for (const each of views) each.select(each === view);
    alone.href = `/${view.id}/?machine=${encodeURIComponent(name)}`;
    if (isByKey) view.tab.focus();
    refresh();
  }

  function refresh() {
    for (const view of views) view.show(view === current ? run : null);
  }

  views.forEach((view) => view.tab.addEventListener("click", () => choose(view, false)));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) choose(views[(views.indexOf(current) + step + views.length) % views.length], true);
  });
  choose(current, false);
  return {
    element,
    update(machine) {
      alone.hidden = !isLive(machine);
      // A machine that was restored is another process: what was open was connected to the one before.
      run = isLive(machine) ? (machine.instance?.keeper_pid ?? 0) : null;
      refresh();
    },
    close() {
      run = null;
      refresh();
    },
  };
}

function makeView({ id, text, open }, name) {
  const tab = h("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": `panel-${id}` }, text);
  const place = h("div", { id, class: "place" });
  const note = h("p", { class: "note" });
  const panel = h(
    "div",
    { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, class: `panel ${id}` },
    note,
    place,
  );
  // Neither a run nor none: nothing was said so far.
  let shown;
  let opened = null;

  async function start(run) {
    try {
      const view = await open(place, name);
      // Meanwhile the machine may have ended, or somebody looked elsewhere.
      if (shown === run) opened = view;
      else view.close();
    } catch (error) {
      if (shown === run) say(`The ${id} cannot be shown here: ${error.message}`);
    }
  }

  function say(words) {
    redraw(note, words, () => words);
    note.hidden = !words;
    place.hidden = Boolean(words);
  }

  return {
    id,
    tab,
    panel,
    select(isCurrent) {
      tab.setAttribute("aria-selected", isCurrent);
      tab.tabIndex = isCurrent ? 0 : -1;
      panel.hidden = !isCurrent;
    },
    /** Of which run; `null` closes. */
    show(run) {
      if (run === shown) return;
      opened?.close();
      opened = null;
      shown = run;
      say(run === null ? `${name} does not run.` : "");
      if (run !== null) start(run);
    },
  };
}
