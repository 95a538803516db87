//! What a write is made of: its processor time beside the ceilings that the same run measured.

use super::Group;
use super::table::{significant, table};
use crate::figures::{CellPart, Results};
use crate::parts::median;
use crate::system::System;
use crate::workload::{Operation, Shape};

/// Nodes of the clusters compared.
const NODES: f64 = 3.0;
/// Clients of the write that is taken apart, and of one that shares commits with many.
const CLIENTS: (usize, usize) = (32, 128);
/// Records of a commit of the bare file: what the first can put into one.
const RECORDS_PER_COMMIT: usize = CLIENTS.0;

/// The table; nothing without the parts that it needs.
pub(super) fn of_a_write(results: &Results) -> String {
    let rows = lines(results).into_iter().flatten().map(|(what, us)| vec![what, significant(us)]);
    table(&["processor time, microseconds", ""], rows.collect())
}

fn lines(results: &Results) -> Option<Vec<(String, f64)>> {
    let cpu = |part, system, operation, shape, clients| {
        let group = Group::find(results, part, (system, operation, shape, clients))?;
        Some(group.median(|measured| measured.servers_cpu_us))
    };
    let write = |system, part, shape, clients| cpu(part, system, Operation::Write, shape, clients);
    let in_turns = |system| write(system, CellPart::Replicas, Shape::Single, CLIENTS.0);
    let (whole, bare) = (in_turns(System::MnemeFsync)?, in_turns(System::BareReplicas)?);
    let many = write(System::MnemeFsync, CellPart::Matrix, Shape::Single, CLIENTS.1)?;
    let batch = write(System::MnemeFsync, CellPart::Groups, Shape::Batch, CLIENTS.0)?;
    let request = cpu(CellPart::Http, System::Hyper, Operation::Read, Shape::Single, CLIENTS.0)?;
    let commits = results
        .frames
        .iter()
        .filter(|frames| frames.is_synced && frames.records_per_commit == RECORDS_PER_COMMIT);
    let files = NODES * median(commits.map(|frames| frames.cpu_us_per_record))?;
    let (few, more) = CLIENTS;
    Some(vec![
        (format!("a write of {few} clients, fsync, three nodes, all servers"), whole),
        ("of it a request and its answer, as bare hyper takes them".to_owned(), request),
        (
            format!("of it three files, as bare SQLite takes them, {RECORDS_PER_COMMIT} records a commit"),
            files,
        ),
        (
            "of it the rest of what bare replicas take: sockets between them, threads woken".to_owned(),
            bare - request - files,
        ),
        (
            "of it what Mneme does: keys, versions, merging, expiry, HTTP/2 between nodes".to_owned(),
            whole - bare,
        ),
        (format!("a write of {more} clients"), many),
        (format!("a record in batches of {}, {few} clients", crate::workload::GROUP), batch),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_write_are_the_whole() {
        let lines = lines(&super::super::imaginary::results()).expect("a whole run has all parts");
        let [whole, request, files, links, own] = [0, 1, 2, 3, 4].map(|line: usize| lines[line].1);
        assert!((whole - request - files - links - own).abs() < 1e-9);
        assert!(files > 0.0 && request > 0.0);
    }

    #[test]
    fn without_the_bare_file_nothing_is_said() {
        let mut results = super::super::imaginary::results();
        results.frames.clear();
        assert_eq!(of_a_write(&results), "");
    }
}
