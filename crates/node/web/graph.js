// The piece of a history's graph that lies beside one row.

import { svg } from "./dom.js";
import { breadth } from "./lanes.js";

/** Where in a row its dot is, how far lanes are apart at most, and how wide all of them are at most. */
const DOT_Y = 22;
const LANE_WIDTH = 18;
const MAX_WIDTH = 110;
const COLOURS = 6;

/** How far the lanes of some rows are apart, and how wide their graph is, beside which there is to be room on a phone, too. */
export function measure(rows, room) {
  const lanes = Math.max(1, ...rows.map((row) => breadth(row.layout)));
  const spacing = Math.min(LANE_WIDTH, MAX_WIDTH / lanes, room / 4 / lanes);
  return { spacing, width: 2 * LANE_WIDTH + (lanes - 1) * spacing };
}

/**
 * What is drawn beside a row. Only lines leave through its lower edge, so it can be as high as the row. They begin a little above
 * it: where two rows meet between two pixels of the screen there would be a gap.
 */
export function drawGraph({ layout, spacing, isNow, isHead }) {
  const { lane, above, below, join, pass } = layout;
  const x = (lane) => LANE_WIDTH + lane * spacing;
  const dot = { class: `dot ${colour(lane)}${isHead ? " head" : ""}`, cx: x(lane), cy: DOT_Y, r: isNow ? 3.5 : 5 };
  return [
    ...pass.map((other) => stroke(x(other), -1, "100%", other)),
    ...join.map((other) => svg("path", { class: `lane ${colour(other)}`, d: curve(x(other), x(lane)) })),
    above && stroke(x(lane), -1, DOT_Y, lane),
    below === "line" && stroke(x(lane), DOT_Y, "100%", lane, isNow),
    below === "stub" && stroke(x(lane), DOT_Y, DOT_Y + 20, lane, true),
    svg("circle", dot),
  ].filter(Boolean);
}

function stroke(x, from, to, lane, isDashed = false) {
  return svg("line", { class: `lane ${colour(lane)}${isDashed ? " dashed" : ""}`, x1: x, x2: x, y1: from, y2: to });
}

function curve(from, to) {
  return `M${from} -1C${from} ${DOT_Y} ${from} ${DOT_Y} ${to} ${DOT_Y}`;
}

function colour(lane) {
  return `c${lane % COLOURS}`;
}
