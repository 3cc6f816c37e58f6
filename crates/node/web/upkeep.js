// Keeping the store in order: checking that everything is what was written, and removing what nothing needs.

import { h } from "./dom.js";
import { bytes, count } from "./format.js";
import { work } from "./tasks.js";

export function makeUpkeep() {
  const result = h("div", { class: "result", tabindex: -1 });
  const does = (run) => async () => {
    const shown = await run();
    if (shown) result.replaceChildren(...shown);
  };
  const button = (text, run) => h("button", { type: "button", onclick: does(run) }, text);
  return h(
    "section",
    {},
    h("h2", {}, "Store"),
    h(
      "p",
      { class: "soft" },
      "Verifying hashes every page again. Collecting garbage applies every machine’s retention, then removes what no snapshot needs; machines run on meanwhile.",
    ),
    h(
      "p",
      { class: "buttons" },
      button("Verify", verify),
      button("See what is garbage", () => collect(true)),
      button("Collect garbage", () => collect(false)),
    ),
    result,
  );
}

async function verify() {
  const done = await work({ title: "Verify the store", path: "verify", tell: verdict, isBad });
  if (!done) return null;
  return [
    h("p", {}, verdict(done)),
    list(
      "Damaged",
      done.damaged.map(({ path, what }) => [h("code", {}, path), `: ${what}`]),
    ),
    list(
      "Cannot be restored",
      done.affected.map(({ name, generation, what }) => [`${name}@${generation}: ${what}`]),
    ),
  ].filter(Boolean);
}

const isBad = ({ damaged, affected }) => damaged.length + affected.length > 0;

function verdict({ snapshots_checked, pages_checked, damaged }) {
  const found =
    damaged.length === 0 ? "everything is as it was written" : `${count(damaged.length, "thing")} not as written`;
  return `${count(snapshots_checked, "snapshot")} and ${count(pages_checked, "page")} checked: ${found}`;
}

async function collect(dry_run) {
  const title = dry_run ? "Look for garbage" : "Collect garbage";
  const done = await work({ title, path: "gc", body: { dry_run }, tell: freed });
  if (!done) return null;
  const { snapshots_expired, snapshots_removed, packs_removed, packs_written, is_held_back, left = [] } = done;
  return [
    h("p", {}, freed(done)),
    h(
      "p",
      { class: "soft" },
      `${count(snapshots_expired, "snapshot")} expired, ${count(snapshots_removed, "snapshot")} removed, ` +
        `${count(packs_removed, "pack")} removed, ${count(packs_written, "pack")} written.`,
    ),
    is_held_back &&
      h(
        "p",
        { class: "soft" },
        "Snapshots that are being made may need some of what could be removed; that stays for now.",
      ),
    list(
      "Not merged",
      left.map((line) => [line]),
    ),
  ].filter(Boolean);
}

function freed({ freed_bytes, dry_run }) {
  if (freed_bytes === 0) return dry_run ? "Nothing would be freed" : "There was nothing to free";
  return `${bytes(freed_bytes)} ${dry_run ? "would be freed" : "are free now"}`;
}

function list(title, lines) {
  if (lines.length === 0) return null;
  return h(
    "div",
    {},
    h("h3", {}, title),
    h(
      "ul",
      {},
      lines.map((line) => h("li", {}, line)),
    ),
  );
}
