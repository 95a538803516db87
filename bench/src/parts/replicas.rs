//! The ceiling of a write: three nodes beside bare replicas, in turns.

use super::Session;
use crate::figures::CellPart;
use crate::system::System;
use crate::workload::{Operation, Shape, Spec};

const NODES: usize = 3;
/// What targets speak of.
const CELLS: [(usize, Shape); 3] = [(1, Shape::Single), (32, Shape::Single), (32, Shape::Batch)];

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut systems =
        [session.start(System::MnemeFsync, NODES).await?, session.start(System::BareReplicas, NODES).await?];
    let specs = CELLS.map(|(clients, shape)| Spec { shape, ..session.spec(Operation::Write, clients) });
    session.in_turns(CellPart::Replicas, &mut systems, &specs).await
}
