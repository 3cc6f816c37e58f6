// A machine's screen on a page: openScreen(element, machine) puts it there, and returns what closes it.
//
//   worker ── pictures ──► canvas        keyboard, pointer ──► worker ──► the machine
//      └───── news ──────► bar, note     (only of whoever is in control)

import { dress } from "../style.js";
import { Bar, WAY_OUT } from "./bar.js";
import { Keyboard } from "./keyboard.js";
import { Pointer } from "./pointer.js";
import { Scale } from "./scale.js";
import { Text } from "./text.js";

// Shows it inside `element`. Keyboard and pointer are the machine's while the picture has the focus.
export async function openScreen(element, machine) {
  await dress(import.meta.url, ["screen.css"]);
  return new Screen(element, machine);
}

class Screen {
  constructor(element, machine) {
    this.element = element;
    this.machine = machine;
    this.state = null;
    this.connected = false;
    this.build();
    this.scale = new Scale(this);
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.hear(data);
    const canvas = this.canvas.transferControlToOffscreen();
    this.worker.postMessage({ canvas, url: address(machine) }, [canvas]);
    const say = what => this.say(what);
    this.text = new Text(this);
    this.keyboard = new Keyboard(this.input, say, text => this.text.write(text), () => this.bar.focus());
    this.pointer = new Pointer(this, say);
    this.bar = new Bar(this);
    this.seen = () => this.worker.postMessage({ visible: !document.hidden });
    document.addEventListener("visibilitychange", this.seen);
    // A page that is left may be kept as it is, with its worker, for whoever comes back: it is not to stay in control meanwhile.
    this.leaving = () => this.worker.terminate();
    this.returning = ({ persisted }) => persisted && location.reload();
    addEventListener("pagehide", this.leaving);
    addEventListener("pageshow", this.returning);
    this.seen();
    this.tell();
  }

  build() {
    this.element.classList.add("screen");
    this.canvas = make("canvas", { width: 640, height: 400, ariaHidden: "true" });
    // What has the focus: it also takes what a keyboard on a touch screen writes.
    this.input = make("textarea", {
      className: "screen-input", tabIndex: -1, rows: 1, spellcheck: false, autocapitalize: "off", autocomplete: "off",
      ariaLabel: `Screen of ${this.machine}: keys go to the machine while this has the focus. ${WAY_OUT}`,
    });
    this.note = make("p", { className: "screen-note", role: "status" });
    this.stage = make("div", { className: "screen-stage" });
    this.stage.append(this.canvas, this.input, this.note);
    this.element.append(this.stage);
  }

  hear({ told, connected, wasClean, size }) {
    if (connected !== undefined) Object.assign(this, { connected, wasClean });
    if (size) this.scale.resize(size);
    if (told) this.listen(told);
    this.tell();
    this.bar.update();
    this.text.update();
  }

  listen(told) {
    if (told.type === "state") this.state = told;
    else if (told.type === "clipboard") this.text.hear(told);
    else if (told.type === "not_typed") this.text.explain(told.reason);
  }

  // Why the picture stands still, if it does.
  tell() {
    const why = this.trouble();
    if (this.note.textContent !== why) this.note.textContent = why;
    this.element.classList.toggle("is-frozen", why !== "");
  }

  trouble() {
    if (!this.connected && !this.state) return "Connecting…";
    // A connection that was ended may be begun again: the machine has gone to another node.
    if (!this.connected && !this.wasClean) return "The node does not answer. Trying again…";
    if (!this.state) return "";
    const { phase, shown, reason } = this.state;
    if (phase !== "running") return reason ? `${this.machine} is ${phase}: ${reason}` : `${this.machine} is ${phase}`;
    return shown ? "" : reason || "Waiting for the picture…";
  }

  get isInControl() {
    return this.connected && this.state !== null && this.state.may_control && this.state.control !== "anothers";
  }

  say(what) {
    if (this.isInControl) this.worker.postMessage({ say: what });
  }

  take() {
    this.worker.postMessage({ say: { type: "take" } });
  }

  focus() {
    this.input.focus({ preventScroll: true });
  }

  close() {
    document.removeEventListener("visibilitychange", this.seen);
    removeEventListener("pagehide", this.leaving);
    removeEventListener("pageshow", this.returning);
    this.keyboard.close();
    this.pointer.close();
    this.scale.close();
    this.text.close();
    this.worker.postMessage({ close: true });
    // What it says goodbye with is on its way.
    setTimeout(() => this.worker.terminate(), 500);
    this.element.classList.remove("screen", "is-frozen");
    this.element.replaceChildren();
  }
}

function address(machine) {
  const url = new URL(`/api/v1/machines/${encodeURIComponent(machine)}/screen`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
