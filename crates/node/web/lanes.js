// Which snapshot follows which, as lanes from the newest down to the oldest. Pure.
//
// ```
//   ●        5   where the machine is now
//   ○        4
//   │ ○      3   went back to 2 after this one
//   ○─╯      2
//   ○        1
// ```
//
// A lane is a column on its way down to one snapshot. A snapshot stands in the leftmost lane that leads to it, and all others
// that do so join there; its parent is what its lane leads to next.

/**
 * For each of `points` (`{id, parent}`, newest first) its row: the `lane` it stands in, the lanes that `pass` it and that `join` it,
 * whether its line comes from `above`, and what is `below`: `line`, `none`, or `stub` if its parent is not listed.
 */
export function layOut(points) {
  const listed = new Set(points.map((point) => point.id));
  const lanes = [];
  return points.map(({ id, parent }) => {
    const found = lanes.indexOf(id);
    const lane = found >= 0 ? found : free(lanes);
    const others = [...lanes.keys()].filter((other) => other !== lane && lanes[other] !== null);
    const row = {
      lane,
      above: found >= 0,
      join: others.filter((other) => lanes[other] === id),
      pass: others.filter((other) => lanes[other] !== id),
      below: parent === null ? "none" : listed.has(parent) ? "line" : "stub",
    };
    for (const other of row.join) lanes[other] = null;
    lanes[lane] = row.below === "line" ? parent : null;
    return row;
  });
}

/** How many lanes a row needs. */
export function breadth(row) {
  return 1 + Math.max(row.lane, ...row.join, ...row.pass);
}

function free(lanes) {
  const found = lanes.indexOf(null);
  return found >= 0 ? found : lanes.push(null) - 1;
}
