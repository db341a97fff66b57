//! Rows of cells, which fit the terminal.

use std::fmt::Write as _;

use crate::out::{Failure, Out, Paint};
use crate::text::{clean, wrapped};

/// A column of a table, with its title.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    Left(&'static str),
    Right(&'static str),
    /// Keys, of which the first digits may stand for the whole: so many tell them apart.
    Key(usize),
}

/// What stands in a row under a column.
#[derive(Clone)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: clean(&text.into()), paint }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Paint::Plain)
    }
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
            Self::Key(_) => "key",
        }
    }
}

/// What stands between two columns.
const GAP: &str = "  ";

/// How many lines a cell takes at most.
const LINES: usize = 4;

/// How wide a column that is broken into lines must be at least.
const NARROW: usize = 16;

impl Out {
    /// Prints a table. One that is too wide for the terminal has its keys shortened, then its widest text broken into
    /// lines; if that is not enough, each row is printed as a record.
    pub(crate) fn table<const N: usize>(
        &mut self,
        columns: [Column; N],
        rows: impl Iterator<Item = [Cell; N]> + Clone,
    ) -> Result<(), Failure> {
        let mut widths = columns.map(|column| column.title().len());
        for row in rows.clone() {
            widths.iter_mut().zip(&row).for_each(|(width, cell)| *width = (*width).max(cell.width()));
        }
        if !self.fit(&columns, &mut widths) {
            for (at, row) in rows.enumerate() {
                if at > 0 {
                    self.line("")?;
                }
                self.record(columns.iter().map(|column| column.title()).zip(row))?;
            }
            return Ok(());
        }
        let titles = columns.map(|column| Cell::new(column.title(), Paint::Dim));
        for row in std::iter::once(titles).chain(rows) {
            self.row(&columns, &widths, &row)?;
        }
        Ok(())
    }

    /// Prints names and values, one below the other.
    pub(crate) fn record<'n>(&mut self, fields: impl Iterator<Item = (&'n str, Cell)> + Clone) -> Result<(), Failure> {
        let name = fields.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
        let room = self.width.map(|width| width.saturating_sub(name.saturating_add(GAP.len())).max(NARROW));
        for (title, cell) in fields {
            let widths = [name, room.unwrap_or(usize::MAX).min(cell.width())];
            self.row(&[Column::Left(""), Column::Left("")], &widths, &[Cell::new(title, Paint::Dim), cell])?;
        }
        Ok(())
    }

    /// Makes columns as narrow as the terminal is, and returns whether that can be done.
    fn fit<const N: usize>(&self, columns: &[Column; N], widths: &mut [usize; N]) -> bool {
        let gaps = N.saturating_sub(1).saturating_mul(GAP.len());
        let Some(room) = self.width.map(|width| width.saturating_sub(gaps)) else { return true };
        let surplus = |widths: &[usize; N]| widths.iter().copied().fold(0, usize::saturating_add).saturating_sub(room);
        if surplus(widths) > 0 {
            for (width, column) in widths.iter_mut().zip(columns) {
                if let Column::Key(digits) = column {
                    *width = (*width).min(*digits).max(column.title().len());
                }
            }
        }
        let surplus = surplus(widths);
        let texts = widths.iter_mut().zip(columns).filter(|(_, column)| matches!(column, Column::Left(_)));
        match texts.map(|(width, _)| width).max() {
            _ if surplus == 0 => true,
            Some(widest) => {
                let narrow = widest.saturating_sub(surplus);
                let is_enough = narrow >= NARROW && *widest <= narrow.saturating_mul(LINES);
                *widest = narrow;
                is_enough
            }
            None => false,
        }
    }

    fn row<const N: usize>(
        &mut self,
        columns: &[Column; N],
        widths: &[usize; N],
        cells: &[Cell; N],
    ) -> Result<(), Failure> {
        let mut at = 0;
        loop {
            let (mut line, mut is_last) = (String::new(), true);
            for ((cell, column), width) in cells.iter().zip(columns).zip(widths) {
                let lines = match column {
                    _ if cell.width() <= *width => vec![cell.text.clone()],
                    Column::Key(_) => vec![cell.text.chars().take(*width).collect()],
                    _ => wrapped(&cell.text, *width),
                };
                let text = lines.get(at).map_or("", |text| &text[..]);
                is_last &= lines.len() <= usize::saturating_add(at, 1);
                let gap = " ".repeat(width.saturating_sub(text.chars().count()));
                if !line.is_empty() {
                    line.push_str(GAP);
                }
                let text = if text.is_empty() { String::new() } else { self.painted(text, cell.paint) };
                let _ = match column {
                    Column::Right(_) => write!(line, "{gap}{text}"),
                    _ => write!(line, "{text}{gap}"),
                };
            }
            self.finished(&line)?;
            if is_last {
                return Ok(());
            }
            at = usize::saturating_add(at, 1);
        }
    }
}
