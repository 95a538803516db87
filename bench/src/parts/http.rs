//! The ceiling of HTTP: reads of one node beside bare servers that answer the same bytes, in turns.

use super::Session;
use crate::figures::CellPart;
use crate::system::System;
use crate::workload::{Operation, Shape, Spec};

const CLIENTS: [usize; 3] = [1, 32, 128];
const PIPELINE_CLIENTS: usize = 32;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut servers = [
        session.start(System::MnemeFsync, 1).await?,
        System::Hyper.start(1).await?,
        System::Nginx.start(1).await?,
    ];
    let shapes = CLIENTS.map(|clients| (clients, Shape::Single)).into_iter();
    let specs: Vec<Spec> = shapes
        .chain([(PIPELINE_CLIENTS, Shape::Pipeline)])
        .map(|(clients, shape)| {
            let spec = session.spec(Operation::Read, clients);
            // Cells are short.
            Spec { shape, measured: spec.measured / 2, ..spec }
        })
        .collect();
    session.in_turns(CellPart::Http, &mut servers, &specs).await
}
