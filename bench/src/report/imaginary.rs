//! Figures of an imaginary run, for tests of the page.

use crate::figures::{
    Cell, CellPart, Expiry, ExpiryTurn, Frames, Growth, Large, Measured, Percentiles, Results, Rewritten,
};
use crate::system::System;
use crate::workload::{Operation, Shape};

fn percentiles(p50_us: f64) -> Percentiles {
    let (p90_us, p99_us, p999_us) = (2.0 * p50_us, 4.0 * p50_us, 8.0 * p50_us);
    Percentiles { count: 1_000, p50_us, p90_us, p99_us, p999_us, max_us: 16.0 * p50_us }
}

fn measured(per_second: f64) -> Measured {
    Measured {
        operations: 1_000,
        failed: 0,
        unanswered: 0,
        seconds: 1.0,
        per_second,
        writes: Some(percentiles(300.0)),
        reads: None,
        servers_cpu_us: 30.0,
        client_cpu_us: 5.0,
        other_cores: 0.1,
    }
}

/// Every part, two rounds; in the second everything takes twice as long.
pub(crate) fn results() -> Results {
    let mut results = Results::default();
    let mut add = |part, system: System, operation, shape, clients, rate, per_second: f64| {
        for round in 0..2 {
            let measured = measured(per_second / (round + 1) as f64);
            let cell = Cell { part, system, operation, shape, nodes: 3, clients, rate, round, measured };
            results.cells.push(cell);
        }
    };
    for system in System::REPLICATED {
        let rate = if system == System::MnemeFsync { 40_000.0 } else { 10_000.0 };
        for operation in Operation::ALL {
            for clients in [1, 32, 128] {
                add(CellPart::Matrix, system, operation, Shape::Single, clients, None, rate);
            }
        }
        add(CellPart::Groups, system, Operation::Write, Shape::Batch, 32, None, 10.0 * rate);
        add(CellPart::Open, system, Operation::Write, Shape::Single, 128, Some(4_000), 4_000.0);
    }
    for system in [System::MnemeFsync, System::Hyper, System::Nginx] {
        add(CellPart::Http, system, Operation::Read, Shape::Single, 32, None, 100_000.0);
    }
    for (system, rate) in [(System::MnemeFsync, 20_000.0), (System::BareReplicas, 30_000.0)] {
        for (shape, clients) in [(Shape::Single, 1), (Shape::Single, 32), (Shape::Batch, 32)] {
            add(CellPart::Replicas, system, Operation::Write, shape, clients, None, rate);
        }
    }
    add(CellPart::Nodes, System::MnemeFsync, Operation::Write, Shape::Single, 32, None, 20_000.0);
    results.frames.push(Frames {
        is_synced: true,
        records_per_commit: 32,
        records_per_second: 100_000.0,
        cpu_us_per_record: 3.0,
        commit: percentiles(200.0),
    });
    for (records, cpu_beside_small) in [(10_000, 1.0), (1_000_000, 1.05)] {
        results.growth.push(Growth { records, servers_cpu_us: 30.0, per_second: 30_000.0, cpu_beside_small });
    }
    results.large = Some(large());
    let turns = [60.0, 70.0, 400.0].map(|expiring_us| ExpiryTurn {
        quiet: percentiles(50.0),
        expiring: percentiles(expiring_us),
        dropping: percentiles(70.0),
        gone_seconds: 1.0,
        failed: 0,
        read_after_deadline: 0,
    });
    results.expiry = Some(Expiry { records: 1_000_000, reads_per_second: 5_000, turns: turns.into() });
    results
}

fn large() -> Large {
    Large {
        records: 1_000_000,
        value_bytes: 300,
        key_bytes: 42,
        fill_seconds: 5.0,
        memory_bytes_per_record: 450.0,
        memory_bytes_per_record_beyond_key_and_value: 108.0,
        memory_bytes_per_record_after_restart: 440.0,
        restart_ready_seconds: 1.0,
        empty_node_ready_seconds: 3.0,
        empty_node_records: 1_000_000,
        empty_node_ready_seconds_beside_writes: 4.0,
        writes_beside_a_join: percentiles(500.0),
        tombstones: 500_000,
        memory_bytes_per_tombstone: 40.0,
        rewritten: Rewritten {
            records: 50_000,
            writes: 1_000_000,
            file_bytes_max: 60 << 20,
            live_bytes: 20 << 20,
        },
    }
}
