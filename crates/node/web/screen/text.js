// Text for the machine, and from it: typed key by key, or over its clipboard where its guest has an agent.

const KEPT_LAYOUT = "watari-layout";

export class Text {
  constructor(screen) {
    this.screen = screen;
    // What the machine's clipboard has, as far as it was told.
    this.copied = "";
    // What was put there last, so that it is not put there again.
    this.sent = "";
    this.build();
    this.listening = new AbortController();
    // Whoever comes back to the picture may have copied something elsewhere.
    screen.input.addEventListener("focus", () => this.bring(), { signal: this.listening.signal });
  }

  build() {
    this.area = element("textarea", { rows: 8, spellcheck: false, ariaLabel: "Text" });
    this.layout = element("select", { onchange: () => localStorage.setItem(KEPT_LAYOUT, this.layout.value) });
    this.note = element("p", { role: "status" });
    this.type = button("Type it", () => {
      this.write(this.area.value);
      this.dialog.close();
    });
    this.put = button("Put on the machine's clipboard", () => {
      this.send(this.area.value);
      this.note.textContent = "It is on the machine's clipboard.";
    });
    this.get = button("Copy what the machine has copied", () => this.fetch());
    const stop = button("Stop typing", () => this.screen.say({ type: "stop_typing" }));
    const layout = element("label", { textContent: "The machine's keyboard " });
    layout.append(this.layout);
    const buttons = element("p", { className: "screen-buttons" });
    buttons.append(this.type, stop, this.put, this.get, button("Close", () => this.dialog.close()));
    this.dialog = element("dialog", { className: "screen-text", ariaLabel: "Text for the machine" });
    this.dialog.append(this.area, layout, buttons, this.note);
    this.dialog.onclose = () => this.screen.focus();
    this.screen.element.append(this.dialog);
  }

  open() {
    this.offerLayouts();
    this.note.textContent = "";
    this.show();
    this.area.select();
  }

  show() {
    this.update();
    if (!this.dialog.open) this.dialog.showModal();
  }

  // Says why a text is not typed.
  explain(reason) {
    this.show();
    this.note.textContent = `Nothing was typed: ${reason}.`;
  }

  update() {
    const { state, isInControl } = this.screen;
    this.type.disabled = !isInControl;
    this.put.disabled = !isInControl || !state.clipboard;
    this.get.disabled = !this.copied;
  }

  // The layouts that the node knows, beginning with what the person has, most likely.
  offerLayouts() {
    if (this.layout.length > 0) return;
    const { layouts } = this.screen.state;
    this.layout.append(...Object.entries(layouts).map(([name, title]) => new Option(title, name)));
    const [language, region] = navigator.language.toLowerCase().split("-");
    const guesses = [localStorage.getItem(KEPT_LAYOUT), region, language, "us"];
    this.layout.value = guesses.find(guess => guess in layouts);
  }

  // Types text.
  write(text) {
    if (!this.screen.isInControl) return;
    this.offerLayouts();
    this.screen.say({ type: "type", text, layout: this.layout.value });
  }

  // Puts text on the machine's clipboard.
  send(text) {
    this.sent = text;
    this.screen.say({ type: "clipboard", text });
  }

  // The machine has copied something; or that, or what was put there, was too long to be passed on.
  hear({ text, too_long: bytes }) {
    if (bytes !== undefined) {
      this.note.textContent = `A text of ${Math.ceil(bytes / 1024)} KiB is too long for the clipboard: 1024 is the most.`;
      return;
    }
    this.copied = text;
    this.sent = text;
    this.update();
    // A browser lets a page do that while a person uses it; the dialog has a button for when it does not.
    if (document.hasFocus()) navigator.clipboard?.writeText(text).catch(() => {});
  }

  async fetch() {
    this.area.value = this.copied;
    this.area.select();
    const done = await navigator.clipboard?.writeText(this.copied).then(() => true, () => false);
    this.note.textContent = done ? "It is copied." : "Copy it from here: the browser does not let the page do so.";
  }

  // What the person has copied elsewhere goes to the machine, if the browser was told to allow that: nobody is asked just because
  // he looks at a picture.
  async bring() {
    if (!this.screen.isInControl || !this.screen.state.clipboard) return;
    const allowed = await navigator.permissions?.query({ name: "clipboard-read" }).catch(() => null);
    if (allowed?.state !== "granted") return;
    const text = await navigator.clipboard.readText().catch(() => "");
    if (text && text !== this.sent) this.send(text);
  }

  close() {
    this.listening.abort();
  }
}

function button(text, act) {
  return element("button", { type: "button", textContent: text, onclick: act });
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
