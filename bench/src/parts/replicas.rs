//! The ceiling of a write: three nodes beside bare replicas, in turns.

use super::Session;
use crate::figures::CellPart;
use crate::system::System;
use crate::workload::{Operation, Shape};

const NODES: usize = 3;
/// What targets speak of.
const CELLS: [(usize, Shape); 3] = [(1, Shape::Single), (32, Shape::Single), (32, Shape::Batch)];
/// Turns for each round of the rest: what is wanted is a ratio.
const TURNS: usize = 2;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut systems =
        [session.start(System::MnemeFsync, NODES).await?, session.start(System::BareReplicas, NODES).await?];
    for round in 0..session.rounds() * TURNS {
        for (clients, shape) in CELLS {
            for system in &mut systems {
                let mut spec = session.spec(Operation::Write, clients);
                spec.shape = shape;
                session.cell(CellPart::Replicas, round, system, &spec).await?;
            }
        }
        systems.reverse();
    }
    Ok(())
}
