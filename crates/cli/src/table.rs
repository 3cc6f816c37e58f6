//! Columns that line up.

/// A table of text; numbers may ask to be aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    /// A table with a heading; `right` lists the columns to be aligned to the right.
    pub(crate) fn new(heading: &[&str], right: &'static [usize]) -> Table {
        Table { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()], right }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The whole table, without blanks at the ends of lines.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if self.right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "GEN", "WHY"], &[1]);
        table.row(["web".into(), "12".into(), String::new()]);
        table.row(["database".into(), "3".into(), "killed".into()]);
        assert_eq!(table.render(), "NAME      GEN  WHY\nweb        12\ndatabase    3  killed\n");
    }
}
