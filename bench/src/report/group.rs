//! The measurements of one thing over all rounds.

use crate::figures::{Cell, CellPart, Measured, Percentiles, Results};
use crate::parts::median;
use crate::system::System;
use crate::workload::{Operation, Shape};

/// Cells that differ in their round alone; at least one.
pub(crate) struct Group<'a> {
    cells: Vec<&'a Cell>,
}

impl<'a> Group<'a> {
    /// All groups of a part, in the order in which they were first measured.
    pub(crate) fn all(results: &'a Results, part: CellPart) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for cell in results.cells.iter().filter(|cell| cell.part == part) {
            match groups.iter_mut().find(|group| is_same(group.cell(), cell)) {
                Some(group) => group.cells.push(cell),
                None => groups.push(Self { cells: vec![cell] }),
            }
        }
        groups
    }

    /// The group of a part with these properties.
    pub(crate) fn find(
        results: &'a Results,
        part: CellPart,
        (system, operation, shape, clients): (System, Operation, Shape, usize),
    ) -> Option<Self> {
        Self::all(results, part).into_iter().find(|group| {
            let cell = group.cell();
            (cell.system, cell.operation, cell.shape, cell.clients) == (system, operation, shape, clients)
        })
    }

    /// The first cell, for what all have in common.
    pub(crate) fn cell(&self) -> &'a Cell {
        self.cells[0]
    }

    /// The median of a figure.
    pub(crate) fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.cells.iter().map(|cell| figure(&cell.measured))).unwrap_or(0.0)
    }

    /// The median of a figure of the latency, in microseconds.
    pub(crate) fn latency(&self, figure: impl Fn(Percentiles) -> f64) -> f64 {
        median(self.cells.iter().filter_map(|cell| cell.measured.latency()).map(figure)).unwrap_or(0.0)
    }

    /// Least and most operations a second.
    pub(crate) fn range(&self) -> (f64, f64) {
        let rates = || self.cells.iter().map(|cell| cell.measured.per_second);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }

    /// Median over the rounds of this one's rate beside another's in the same round.
    pub(crate) fn rate_beside(&self, other: &Self) -> Option<f64> {
        median(self.cells.iter().filter_map(|cell| {
            let other = other.cells.iter().find(|other| other.round == cell.round)?;
            Some(cell.measured.per_second / other.measured.per_second)
        }))
    }
}

fn is_same(one: &Cell, other: &Cell) -> bool {
    // No `..`: a property added to `Cell` must be compared here, or this fails to compile.
    let Cell { part, system, operation, shape, nodes, clients, rate, round: _, measured: _ } = one;
    (part, system, operation, shape) == (&other.part, &other.system, &other.operation, &other.shape)
        && (nodes, clients, rate) == (&other.nodes, &other.clients, &other.rate)
}
