//! The ceiling of HTTP: reads of one node beside bare servers that answer the same bytes, in turns.

use super::Session;
use crate::figures::CellPart;
use crate::system::System;
use crate::workload::{Operation, Shape};

const CLIENTS: [usize; 3] = [1, 32, 128];
const PIPELINE_CLIENTS: usize = 32;
/// Turns for each round of the rest: what is wanted is a ratio, and cells are short.
const TURNS: usize = 2;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut servers = [
        session.start(System::MnemeFsync, 1).await?,
        System::Hyper.start(1).await?,
        System::Nginx.start(1).await?,
    ];
    for round in 0..session.rounds() * TURNS {
        let shapes = CLIENTS.map(|clients| (clients, Shape::Single)).into_iter();
        for (clients, shape) in shapes.chain([(PIPELINE_CLIENTS, Shape::Pipeline)]) {
            for server in &mut servers {
                let mut spec = session.spec(Operation::Read, clients);
                spec.shape = shape;
                spec.measured /= 2;
                session.cell(CellPart::Http, round, server, &spec).await?;
            }
        }
        servers.reverse();
    }
    Ok(())
}
