// Looking again and again, but only while somebody looks.

/**
 * Calls `look(signal)` now, and again `pause_ms` after it finished; not while the page is hidden. What `look` throws is lost:
 * the connection's state tells of it, and the next look is the next try.
 */
export function poll(look, pause_ms) {
  const ending = new AbortController();
  let timer = null;
  let isLooking = false;
  let isDue = false;

  async function turn() {
    clearTimeout(timer);
    if (ending.signal.aborted || document.hidden) return;
    if (isLooking) {
      isDue = true;
      return;
    }
    isLooking = true;
    isDue = false;
    await Promise.resolve(look(ending.signal)).catch(complain);
    isLooking = false;
    timer = setTimeout(turn, isDue ? 0 : pause_ms);
  }

  document.addEventListener("visibilitychange", turn, { signal: ending.signal });
  // Somebody changed something on this page: `work` in tasks.js says so.
  document.addEventListener("changed", turn, { signal: ending.signal });
  turn();
  return {
    /** Does not wait for the next look. */
    now: turn,
    close() {
      clearTimeout(timer);
      ending.abort();
    },
  };
}

/** Failures of the API are expected; anything else is a mistake of this page. */
function complain(error) {
  if (!("kind" in error) && error.name !== "AbortError") console.error(error);
}
