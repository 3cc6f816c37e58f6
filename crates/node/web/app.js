// Where the page begins: which view the address names, and what is said while the node does not answer.

import { connection, get } from "./api.js";
import { h } from "./dom.js";
import { openMachine } from "./machine.js";
import { openMachines } from "./machines.js";
import { openNode } from "./node.js";

const VIEWS = [
  [/^(?:#\/?)?$/, openMachines],
  [/^#\/machines\/([^/]+)$/, openMachine],
  [/^#\/node$/, openNode],
];

const main = document.getElementById("main");
const banner = document.getElementById("banner");
let view = null;
let version = null;

/** Shows what the address names. `isFirst`: the page was just loaded, so the focus is where it belongs. */
function route(isFirst) {
  view?.close();
  main.replaceChildren();
  const [open, name] = find(location.hash);
  view = open(main, name);
  markCurrent();
  if (isFirst) return;
  scrollTo(0, 0);
  main.querySelector("h1")?.focus({ preventScroll: true });
}

function find(hash) {
  for (const [pattern, open] of VIEWS) {
    const found = pattern.exec(hash);
    if (found) return [open, found[1] && decodeURIComponent(found[1])];
  }
  return [openNowhere];
}

function openNowhere(parent) {
  document.title = "Watari";
  parent.append(h("h1", { tabindex: -1 }, "There is nothing here"), h("p", {}, h("a", { href: "#/" }, "All machines")));
  return { close() {} };
}

function markCurrent() {
  const isNode = location.hash === "#/node";
  for (const link of document.querySelectorAll("nav a")) {
    const isCurrent = (link.hash === "#/node") === isNode;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** The token has become a cookie; in the address it would stay in the history and in bookmarks. */
function hideToken() {
  const address = new URL(location);
  if (!address.searchParams.has("token")) return;
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

function sayConnection() {
  main.hidden = connection.state === "locked";
  banner.replaceChildren(...bannerText(connection.state));
  if (connection.state === "up") noticeVersion();
}

function bannerText(state) {
  if (state === "down") {
    return [
      h("strong", {}, "The node does not answer."),
      " Its machines run on. This page goes on by itself when the node is back; ",
      h("code", {}, "watari up"),
      " starts it.",
    ];
  }
  if (state === "locked") {
    return [
      h("strong", {}, "The node does not know this browser."),
      " On the node's computer, ",
      h("code", {}, "watari up"),
      " prints the address of this page with its key, and ",
      h("code", {}, "watari screen NAME"),
      " that of a machine's screen. Open that address; this page goes on then.",
    ];
  }
  return [];
}

/** A node that came back may be a newer one, and this page no longer its own. */
async function noticeVersion() {
  const node = await get("node").catch(() => null);
  if (node && version && node.version !== version) {
    const reload = h("button", { type: "button", onclick: () => location.reload() }, "Reload");
    banner.replaceChildren(`The node runs version ${node.version} now. `, reload);
  }
  version ??= node?.version;
}

hideToken();
connection.addEventListener("change", sayConnection);
window.addEventListener("hashchange", () => route(false));
document.getElementById("skip").addEventListener("click", (event) => {
  // The address after the # is the view's, so the link itself must not go there.
  event.preventDefault();
  main.focus();
});
noticeVersion();
route(true);
