// A form in a dialog: asks for what a request needs, and says what it will do.

import { h } from "./dom.js";

let made = 0;

/**
 * Asks. Each field is `{name, label, type}` with a type of `text`, `number`, `checkbox`, `select` or `radio`, the last two with
 * `options` of `[value, text, help]`. Besides that `help`, `value`, `required`, `placeholder`, `min`, `max`, `isNarrow`, a
 * `pattern` with its `rule` in words, and `when(values)`, which says whether the field makes sense. `values` are those of an
 * earlier attempt. Resolves to the values, or `null` if nothing is to be done.
 */
export function ask({ title, text = [], fields = [], submit, danger = false, values = {} }) {
  const parts = fields.map((field) => makeField({ ...field, value: values[field.name] ?? field.value }));
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    [text].flat().map((paragraph) => h("p", {}, paragraph)),
    parts.map((part) => part.element),
    h(
      "p",
      { class: "buttons" },
      h("button", { value: "", formnovalidate: true }, "Cancel"),
      h("button", { value: "go", class: danger ? "danger" : "primary" }, submit),
    ),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  form.addEventListener("input", () => showThoseThatApply(parts));
  showThoseThatApply(parts);
  goOnEnter(form);
  return open(dialog, parts);
}

function open(dialog, parts) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "go" ? read(parts) : null);
    });
  });
}

/** Enter would press the first button of the form, which cancels. */
function goOnEnter(form) {
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches("input")) return;
    event.preventDefault();
    form.requestSubmit(form.querySelector("button[value=go]"));
  });
}

function read(parts) {
  return Object.fromEntries(parts.filter((part) => !part.element.hidden).map((part) => [part.name, part.read()]));
}

function showThoseThatApply(parts) {
  for (const part of parts) {
    if (!part.when) continue;
    part.element.hidden = !part.when(read(parts));
    // What is hidden must not hold up the form by being required.
    for (const control of part.element.querySelectorAll("input, select")) control.disabled = part.element.hidden;
  }
}

function makeField(field) {
  const id = `field-${(made += 1)}`;
  const control = field.type === "radio" ? radios(field, id) : single(field, id);
  return { name: field.name, when: field.when, ...control };
}

/** One control with its label above it, or beside it if it is to be ticked. */
function single(field, id) {
  const control = field.type === "select" ? select(field, id) : input(field, id);
  const label = h("label", { for: id }, field.label);
  const help = field.help && h("p", { class: "help", id: `${id}-help` }, field.help);
  const isTick = field.type === "checkbox";
  const element = h(
    "div",
    { class: isTick ? "field tick" : field.isNarrow ? "field narrow" : "field" },
    isTick ? [control, label] : [label, control],
    help,
  );
  return { element, read: () => (isTick ? control.checked : control.value.trim()) };
}

function input({ type, value, help, required, pattern, rule, min, max, placeholder }, id) {
  return h("input", {
    id,
    type,
    required,
    pattern,
    title: rule,
    min,
    max,
    placeholder,
    checked: type === "checkbox" && value === true,
    value: type === "checkbox" ? null : value,
    "aria-describedby": help && `${id}-help`,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
  });
}

function select({ options, value, help }, id) {
  const choices = options.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
  return h("select", { id, "aria-describedby": help && `${id}-help` }, choices);
}

function radios({ label, options, value }, id) {
  const choices = options.map(([key, text, help], at) => {
    const own = `${id}-${at}`;
    const control = h("input", {
      type: "radio",
      id: own,
      name: id,
      value: key,
      checked: key === (value ?? options[0][0]),
      "aria-describedby": help && `${own}-help`,
    });
    const note = help && h("span", { class: "help", id: `${own}-help` }, help);
    return h("div", { class: "tick" }, control, h("label", { for: own }, text), note);
  });
  const element = h("fieldset", { class: "field" }, h("legend", {}, label), choices);
  return { element, read: () => element.querySelector("input:checked").value };
}
