//! What has scrolled: found by looking for the strips of what is to be shown among those that are.

use std::collections::HashMap;
use std::ops::Range;

use crate::grid::Grid;
use crate::plan::Op;

/// So many strips must have moved the same way, or it was by chance.
const VOTES: u32 = 24;
/// Fewer changed rows than these are not worth a copy.
const WORTH: usize = 8;

/// How to get part of the picture from what is shown: for each column of blocks the hashes of its strips, as
/// [`Grid::strips`] has them, and zero where that is not known. In the order in which it is to be done. All of it goes the same way.
/// `is_settled` says of a column and a row that it is shown roughly as it is to be: it has not moved, whatever is elsewhere.
pub(crate) fn find(grid: &Grid, shown: &[u64], is_settled: impl Fn(u32, usize) -> bool) -> Vec<Op> {
    let height = grid.picture().height() as usize;
    let columns = || (0..grid.columns()).zip(shown.chunks_exact(height));
    let has_changed =
        |column, y: usize, shown: &[u64]| grid.strips(column)[y] != shown[y] && !is_settled(column, y);
    let Some(down) = direction(grid, columns(), &has_changed) else { return Vec::new() };
    let mut found: Vec<(u32, u32, Range<usize>)> = Vec::new();
    for (column, shown) in columns() {
        for run in runs(grid.strips(column), shown, down, |y| has_changed(column, y, shown)) {
            let beside =
                found.iter_mut().find(|(first, count, rows)| first + *count == column && *rows == run);
            match beside {
                Some((_, count, _)) => *count += 1,
                None => found.push((column, 1, run)),
            }
        }
    }
    // What is to be copied must not have been copied over.
    found.sort_by_key(|(_, _, rows)| rows.start);
    if down > 0 {
        found.reverse();
    }
    let copy = |(column, columns, rows): (u32, u32, Range<usize>)| {
        let (y, height) = (rows.start as u32, rows.len() as u32);
        Op::Copy { column, columns, y, height, down }
    };
    found.into_iter().map(copy).collect()
}

/// Which way most of what has moved went.
fn direction<'a>(
    grid: &Grid,
    columns: impl Iterator<Item = (u32, &'a [u64])>,
    has_changed: &impl Fn(u32, usize, &[u64]) -> bool,
) -> Option<i32> {
    let mut votes: HashMap<i32, u32> = HashMap::new();
    for (column, shown) in columns {
        let wanted = grid.strips(column);
        let changed: Vec<usize> = (0..wanted.len()).filter(|y| has_changed(column, *y, shown)).collect();
        if changed.len() < WORTH {
            continue;
        }
        // A strip that is there twice, an empty one mostly, could come from anywhere.
        let mut places: HashMap<u64, Option<usize>> = HashMap::with_capacity(shown.len());
        for (y, hash) in shown.iter().enumerate().filter(|(_, hash)| **hash != 0) {
            places.entry(*hash).and_modify(|place| *place = None).or_insert(Some(y));
        }
        for y in changed {
            if let Some(Some(from)) = places.get(&wanted[y]) {
                *votes.entry(y as i32 - *from as i32).or_default() += 1;
            }
        }
    }
    let best =
        votes.into_iter().filter(|(down, _)| *down != 0).max_by_key(|(down, votes)| (*votes, *down))?;
    (best.1 >= VOTES).then_some(best.0)
}

/// The rows of a column that are shown `down` rows above where they are wanted, and not where they are wanted.
fn runs(wanted: &[u64], shown: &[u64], down: i32, has_changed: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let fits = |y: usize| {
        let from = y.checked_add_signed(-down as isize);
        from.and_then(|from| shown.get(from)).is_some_and(|hash| *hash == wanted[y])
    };
    let mut found = Vec::new();
    let mut y = 0;
    while y < wanted.len() {
        let start = y;
        while y < wanted.len() && fits(y) {
            y += 1;
        }
        let changed = || (start..y).filter(|at| has_changed(*at));
        if let (Some(first), Some(last)) = (changed().next(), changed().next_back())
            && changed().count() >= WORTH
        {
            found.push(first..last + 1);
        }
        y += 1;
    }
    found
}
