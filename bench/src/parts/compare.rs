//! Every replicated system, three nodes each: the matrix, batches and pipelines, open loops.
//!
//! A round starts each system fresh, one after the other; every second round goes the other way, so that a machine that
//! becomes slower or faster meanwhile favours none.

use super::Session;
use crate::figures::CellPart;
use crate::system::{Running, System};
use crate::workload::{Operation, Shape};

const NODES: usize = 3;
const CLIENTS: [usize; 3] = [1, 32, 128];
/// Of batches and pipelines.
const GROUP_CLIENTS: usize = 32;
/// Writes a second of the open loops, the same for all; then four fifths of what the system took in a closed loop.
const RATES: [u32; 2] = [1_000, 4_000];
const LOADED: f64 = 0.8;
/// Enough that in an open loop a request waits for the system and not for a free client.
const OPEN_CLIENTS: usize = 128;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    for round in 0..session.rounds() {
        let mut systems = System::REPLICATED;
        if round % 2 == 1 {
            systems.reverse();
        }
        for system in systems {
            let mut running = session.start(system, NODES).await?;
            let loaded = matrix(session, round, &mut running).await?;
            groups(session, round, &mut running).await?;
            if round == 0 {
                open(session, &mut running, loaded).await?;
            }
        }
    }
    Ok(())
}

/// Gives the writes a second that 32 clients reached.
async fn matrix(session: &mut Session, round: usize, running: &mut Running) -> anyhow::Result<f64> {
    let mut reached = 0.0;
    for operation in Operation::ALL {
        for clients in CLIENTS {
            let spec = session.spec(operation, clients);
            let measured = session.cell(CellPart::Matrix, round, running, &spec).await?;
            if operation == Operation::Write && clients == 32 {
                reached = measured.per_second;
            }
        }
    }
    Ok(reached)
}

/// What each system has to put many records into few exchanges.
fn shapes(system: System) -> &'static [(Operation, Shape)] {
    match system {
        System::MnemeFsync | System::MnemeCommit => &[
            (Operation::Write, Shape::Batch),
            (Operation::Write, Shape::Streams),
            (Operation::Write, Shape::Pipeline),
            (Operation::Read, Shape::Pipeline),
        ],
        System::RedisEverysec | System::RedisAlways => &[
            (Operation::Write, Shape::Batch),
            (Operation::Write, Shape::Pipeline),
            (Operation::Read, Shape::Pipeline),
        ],
        System::Etcd | System::MnesiaTransaction | System::MnesiaSync => &[(Operation::Write, Shape::Batch)],
        System::BareReplicas | System::Hyper | System::Nginx => &[],
    }
}

async fn groups(session: &mut Session, round: usize, running: &mut Running) -> anyhow::Result<()> {
    for (operation, shape) in shapes(running.system) {
        let mut spec = session.spec(*operation, GROUP_CLIENTS);
        spec.shape = *shape;
        session.cell(CellPart::Groups, round, running, &spec).await?;
    }
    Ok(())
}

async fn open(session: &mut Session, running: &mut Running, reached: f64) -> anyhow::Result<()> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands a second")]
    let loaded = (reached * LOADED) as u32;
    for rate in RATES.into_iter().chain([loaded]) {
        let mut spec = session.spec(Operation::Write, OPEN_CLIENTS);
        spec.rate = Some(rate.max(1));
        session.cell(CellPart::Open, 0, running, &spec).await?;
    }
    Ok(())
}
