//! What a write costs when a cluster holds more and more, beside a cluster that holds few records, in turns.

use super::{Session, median};
use crate::figures::Growth;
use crate::system::{Running, System};
use crate::workload::{Operation, Spec};

const NODES: usize = 3;
const CLIENTS: usize = 32;
/// The small cluster's, then the large one's step by step.
const RECORDS: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Records of a filling request.
const BATCH: u64 = 500;
const TURNS: usize = 3;

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let [small, steps @ ..] = RECORDS.map(|records| session.scaled(records));
    let mut few = System::MnemeFsync.start(NODES).await?;
    few.fill_range(0..small, BATCH).await?;
    let mut many = System::MnemeFsync.start(NODES).await?;
    let mut held = 0;
    let mut beside = Vec::new();
    for records in steps {
        session.say(&format!("growth: filling to {records} records"));
        many.fill_range(held..records, BATCH).await?;
        held = records;
        let mut turns = Vec::new();
        for turn in 0..TURNS * session.rounds().min(2) {
            let (few, many) = (measure(session, &mut few, small), measure(session, &mut many, records));
            // Every second turn the other way round.
            turns.push(if turn % 2 == 0 {
                let few = few.await?;
                (few, many.await?)
            } else {
                let many = many.await?;
                (few.await?, many)
            });
        }
        beside.extend(turns.iter().map(|(few, _)| *few));
        let ratio = median(turns.iter().map(|(few, many)| many.0 / few.0)).unwrap_or(f64::NAN);
        session.say(&format!("growth: {records} records cost {ratio:.2} of {small}"));
        push(session, records, turns.iter().map(|(_, many)| *many), ratio);
    }
    push(session, small, beside.into_iter(), 1.0);
    session.results.growth.sort_by_key(|growth| growth.records);
    Ok(())
}

/// Microseconds of the servers' processor time a write, and writes a second.
async fn measure(session: &Session, running: &mut Running, records: u64) -> anyhow::Result<(f64, f64)> {
    let spec = Spec { keys: records, ..session.spec(Operation::Write, CLIENTS) };
    let measured = running.measure(&spec).await?;
    anyhow::ensure!(measured.failed == 0, "{} writes failed", measured.failed);
    Ok((measured.servers_cpu_us, measured.per_second))
}

fn push(session: &mut Session, records: u64, cells: impl Iterator<Item = (f64, f64)> + Clone, ratio: f64) {
    let middle = |values: Vec<f64>| median(values).unwrap_or(f64::NAN);
    session.results.growth.push(Growth {
        records,
        servers_cpu_us: middle(cells.clone().map(|(cpu, _)| cpu).collect()),
        per_second: middle(cells.map(|(_, rate)| rate).collect()),
        cpu_beside_small: ratio,
    });
}
