//! A history as a picture: which snapshot follows which.
//!
//! ```text
//!   ●        5   where the machine is now
//!   ○        4
//!   │ ○      3   went back to 2 after this one
//!   ○─╯      2
//!   ○        1
//! ```

use std::collections::HashSet;

use watari_node::api::SnapshotInfo;
use watari_types::SnapshotId;

/// For each snapshot, newest first, the line that leads to it and past it.
pub(crate) fn draw(snapshots: &[SnapshotInfo]) -> Vec<String> {
    let listed: HashSet<SnapshotId> = snapshots.iter().map(|snapshot| snapshot.id).collect();
    let mut lanes = Lanes::default();
    let row = |snapshot: &SnapshotInfo| {
        let parent = snapshot.parent.filter(|parent| listed.contains(parent));
        lanes.row(snapshot.id, parent, snapshot.head)
    };
    snapshots.iter().map(row).collect()
}

/// What each column is on its way to: a snapshot further down.
#[derive(Default)]
struct Lanes(Vec<Option<SnapshotId>>);

impl Lanes {
    fn row(&mut self, id: SnapshotId, parent: Option<SnapshotId>, is_head: bool) -> String {
        let here = self.0.iter().position(|lane| *lane == Some(id)).unwrap_or_else(|| self.free());
        let last = self.0.iter().rposition(|lane| *lane == Some(id)).unwrap_or(here);
        let mut row = String::new();
        for (column, lane) in self.0.iter().enumerate() {
            row.push(match *lane {
                _ if column == here => {
                    if is_head {
                        '●'
                    } else {
                        '○'
                    }
                }
                Some(next) if next == id => {
                    if column == last {
                        '╯'
                    } else {
                        '┴'
                    }
                }
                // What goes on below is crossed by what joins here.
                Some(_) => {
                    if (here..last).contains(&column) {
                        '┼'
                    } else {
                        '│'
                    }
                }
                None => {
                    if (here..last).contains(&column) {
                        '─'
                    } else {
                        ' '
                    }
                }
            });
            row.push(if (here..last).contains(&column) { '─' } else { ' ' });
        }
        self.0.iter_mut().filter(|lane| **lane == Some(id)).for_each(|lane| *lane = None);
        self.0[here] = parent;
        while self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
        row.trim_end().to_owned()
    }

    /// A column that nothing is on its way in.
    fn free(&mut self) -> usize {
        self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(snapshots: &[(u8, u8)], head: u8) -> String {
        let id = |number: u8| SnapshotId([number; 32]);
        let mut lanes = Lanes::default();
        let row = |(number, parent): &(u8, u8)| {
            let parent = (*parent > 0).then(|| id(*parent));
            format!("{} {number}\n", lanes.row(id(*number), parent, *number == head))
        };
        snapshots.iter().map(row).collect()
    }

    #[test]
    fn one_line_is_one_column() {
        assert_eq!(picture(&[(3, 2), (2, 1), (1, 0)], 3), "● 3\n○ 2\n○ 1\n");
    }

    #[test]
    fn branches_join_where_they_began() {
        assert_eq!(picture(&[(5, 4), (4, 2), (3, 2), (2, 1), (1, 0)], 5), "● 5\n○ 4\n│ ○ 3\n○─╯ 2\n○ 1\n");
        let three = [(6, 1), (5, 2), (4, 2), (3, 2), (2, 1), (1, 0)];
        assert_eq!(picture(&three, 3), "○ 6\n│ ○ 5\n│ │ ○ 4\n│ │ │ ● 3\n│ ○─┴─╯ 2\n○─╯ 1\n");
    }

    #[test]
    fn a_line_that_ends_leaves_its_column_to_others() {
        assert_eq!(picture(&[(6, 4), (5, 0), (4, 2), (3, 0), (2, 0)], 6), "● 6\n│ ○ 5\n○ 4\n│ ○ 3\n○ 2\n");
        let crossed = [(7, 3), (6, 5), (5, 0), (4, 3), (3, 0)];
        assert_eq!(picture(&crossed, 7), "● 7\n│ ○ 6\n│ ○ 5\n│ ○ 4\n○─╯ 3\n");
        let crossing = [(7, 2), (6, 1), (5, 2), (2, 0), (1, 0)];
        assert_eq!(picture(&crossing, 7), "● 7\n│ ○ 6\n│ │ ○ 5\n○─┼─╯ 2\n  ○ 1\n");
    }
}
