// What a history tells in numbers: how large each delta is, how long the guest was held for it, how fast the guest wrote. Pure.

import { PAGE_SIZE } from "./format.js";

/** What changed since the parent, in bytes. */
export function deltaBytes(snapshot) {
  return snapshot.regions.reduce((sum, region) => sum + region.changed_pages, 0) * PAGE_SIZE;
}

/** How long the guest was held; `null` where nobody wrote that down. */
export function pauseMs(snapshot) {
  return snapshot.capture?.pause_ms ?? null;
}

/**
 * Changed bytes per second since the parent. Known only where the machine ran on from the one to the other: a later epoch
 * means that it was ended in between, and for how long it ran then nobody knows.
 */
export function dirtyRate(snapshot, parent) {
  if (!parent || parent.epoch !== snapshot.epoch) return null;
  const seconds = (snapshot.created_unix_ms - parent.created_unix_ms) / 1000;
  return seconds > 0 ? deltaBytes(snapshot) / seconds : null;
}

/** Every snapshot's numbers, oldest first. What a first snapshot holds is all of the machine, and no delta. */
export function numbers(snapshots) {
  const byId = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]));
  return snapshots
    .map((snapshot) => ({
      generation: snapshot.generation,
      at: snapshot.created_unix_ms,
      pause_ms: pauseMs(snapshot),
      delta_bytes: snapshot.parent === null ? null : deltaBytes(snapshot),
      bytes_s: dirtyRate(snapshot, byId.get(snapshot.parent)),
    }))
    .sort((a, b) => a.at - b.at);
}

/** The middle one of some numbers. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)];
}
