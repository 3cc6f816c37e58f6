// A machine's serial console on a page: openConsole(element, machine) puts it there, and returns what closes it.
//
// A serial line has no size: what runs in the guest goes by 24 rows of 80 columns unless it asks the terminal, and is not told when
// the element's size changes; `stty rows … cols …` in the guest does.

import { dress } from "../style.js";
import { FitAddon } from "../vendor/xterm/addon-fit.mjs";
import { Terminal } from "../vendor/xterm/xterm.mjs";
import { Line } from "./line.js";

const DARK = { background: "#0b0d12", foreground: "#d7dbe4", cursor: "#d7dbe4", selectionBackground: "#3b4a6b" };
const LIGHT = { background: "#fffefb", foreground: "#1c2333", cursor: "#1c2333", selectionBackground: "#b9c8ea" };
const isDark = matchMedia("(prefers-color-scheme: dark)");
const WAY_OUT = "Ctrl+] or Ctrl+F6 leaves the terminal";
// A page in the background takes less than a guest may print: behind by so many bytes, it begins anew.
const MOST_PENDING = 4 << 20;

/** Shows it inside `element`. */
export async function openConsole(element, machine) {
  await dress(import.meta.url, ["../vendor/xterm/xterm.css", "console.css"]);
  return new Console(element, machine);
}

class Console {
  constructor(element, machine) {
    this.element = element;
    this.machine = machine;
    this.connected = false;
    this.trouble = "";
    this.state = null;
    this.isReplaying = false;
    this.pending = 0;
    this.terminal = new Terminal({
      theme: isDark.matches ? DARK : LIGHT,
      minimumContrastRatio: 4.5,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono") || "monospace",
      fontSize: 14,
      scrollback: 5000,
      screenReaderMode: true,
    });
    this.build();
    this.listen();
    this.line = new Line(machine, (what) => this.hear(what));
    this.tell();
  }

  build() {
    const place = make("div", { className: "serial-terminal" });
    this.note = make("p", { className: "serial-note", role: "status" });
    this.copying = button("Copy", () => this.copy());
    this.copying.disabled = true;
    this.pasting = button("Paste", () => this.paste());
    this.bar = make("div", { className: "serial-bar", role: "toolbar", ariaLabel: "Console" });
    this.bar.append(this.pasting, this.copying, make("span", { textContent: WAY_OUT }));
    this.element.classList.add("serial");
    this.element.append(place, this.note, this.bar);
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(place);
    this.terminal.textarea.setAttribute("aria-label", `Console of ${this.machine}: keys go to the machine. ${WAY_OUT}`);
    this.sizes = new ResizeObserver(() => this.fit.fit());
    this.sizes.observe(place);
  }

  listen() {
    const bytes = new TextEncoder();
    this.terminal.onData((text) => this.say(bytes.encode(text)));
    this.terminal.onBinary((text) => this.say(Uint8Array.from(text, (char) => char.charCodeAt(0))));
    this.terminal.onSelectionChange(() => (this.copying.disabled = !this.terminal.hasSelection()));
    this.terminal.attachCustomKeyEventHandler((event) => this.key(event));
    this.dress = () => (this.terminal.options.theme = isDark.matches ? DARK : LIGHT);
    isDark.addEventListener("change", this.dress);
  }

  // Returns whether a key is the machine's.
  key(event) {
    const is = (key) => event.ctrlKey && !event.altKey && event.key === key;
    const isLeaving = is("]") || is("F6");
    // Paste has a key in every browser. Copying has not: this is the one of most terminals.
    const isCopying = is("C") && this.terminal.hasSelection();
    if (!isLeaving && !isCopying) return true;
    event.preventDefault();
    if (event.type === "keydown") {
      if (isLeaving) this.pasting.focus();
      else this.copy();
    }
    return false;
  }

  // What is said while old output is written are answers to questions that somebody else has answered before.
  say(bytes) {
    if (!this.isReplaying) this.line.say(bytes);
  }

  hear({ connected, trouble, state, begin, bytes }) {
    if (bytes) {
      this.print(begin, bytes);
      return;
    }
    if (state) this.state = state;
    if (connected !== undefined) [this.connected, this.trouble] = [connected, trouble ?? ""];
    this.tell();
  }

  print(begin, bytes) {
    if (begin) {
      this.isReplaying = true;
      // In the order of what is written: a reset.
      this.terminal.write("\x1bc");
      if (begin.skipped > 0) this.terminal.write(`[${begin.skipped} bytes are left out here]\r\n`);
    }
    this.pending += bytes.length;
    if (this.pending > MOST_PENDING) this.line.again();
    this.terminal.write(bytes, () => {
      this.pending -= bytes.length;
      if (begin) this.isReplaying = false;
    });
  }

  // Why nothing is printed, if it is not.
  tell() {
    const why = this.why();
    if (this.note.textContent !== why) this.note.textContent = why;
  }

  why() {
    if (!this.connected) return this.trouble ? `${this.trouble}. Trying again…` : "Connecting…";
    const { phase, reason, connected } = this.state ?? {};
    if (!phase) return "";
    if (phase !== "running") return `${this.machine} is ${phase}${reason ? `: ${reason}` : ""}`;
    return connected ? "" : `Waiting for ${this.machine}…`;
  }

  async copy() {
    await navigator.clipboard.writeText(this.terminal.getSelection()).catch(() => this.refuse("copied"));
    this.focus();
  }

  async paste() {
    const text = await navigator.clipboard.readText().catch(() => this.refuse("pasted"));
    if (text) this.terminal.paste(text);
    this.focus();
  }

  refuse(what) {
    this.note.textContent = `The browser lets nothing be ${what} from here; its own keys and menus may.`;
  }

  focus() {
    this.terminal.focus();
  }

  close() {
    this.line.close();
    this.sizes.disconnect();
    isDark.removeEventListener("change", this.dress);
    this.terminal.dispose();
    this.element.classList.remove("serial");
    this.element.replaceChildren();
  }
}

function button(text, onclick) {
  return make("button", { type: "button", textContent: text, onclick });
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
