//! Clusters of several sizes.

use super::Session;
use crate::figures::CellPart;
use crate::system::System;
use crate::workload::Operation;

const SIZES: [usize; 4] = [2, 3, 5, 7];
const CLIENTS: usize = 32;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for nodes in SIZES {
        let mut running = session.start(System::MnemeFsync, nodes).await?;
        for operation in [Operation::Write, Operation::Read] {
            let spec = session.spec(operation, CLIENTS);
            session.cell(CellPart::Nodes, 0, &mut running, &spec).await?;
        }
    }
    Ok(())
}
