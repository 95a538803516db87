//! What is to be reached, and whether it was.

use super::Group;
use super::table::significant;
use crate::figures::{CellPart, ExpiryTurn, Large, Percentiles, Results};
use crate::parts::median;
use crate::system::System;
use crate::workload::{Operation, Shape};

/// Clients of the cells that targets speak of.
const CLIENTS: usize = 32;
/// As many as the writes beside Mnesia are told of besides.
const MANY_CLIENTS: usize = 128;
/// Records that targets speak of: what was measured at fewer says nothing of them.
const MANY_RECORDS: u64 = 1_000_000;
/// What a file may have beyond twice its live bytes.
const FILE_EXTRA_BYTES: f64 = (64 << 20) as f64;

/// A bound of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use self::Bound::{AtLeast, AtMost};

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            AtMost(bound) => measured <= bound,
            AtLeast(bound) => measured >= bound,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            AtMost(bound) => format!("≤ {bound}{unit}"),
            AtLeast(bound) => format!("≥ {bound}{unit}"),
        }
    }
}

/// How a figure stands to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NotMeasured,
    NotMet,
    Met,
    AimMet,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::NotMeasured => "not measured",
            Self::NotMet => "**not met**",
            Self::Met => "met",
            Self::AimMet => "met, with the aim",
        }
    }
}

struct Target {
    figure: String,
    must: Option<Bound>,
    aim: Option<Bound>,
    unit: &'static str,
    measured: Option<f64>,
    /// What bare replicas reach, where they do the same.
    ceiling: Option<f64>,
}

impl Target {
    fn new(
        figure: impl Into<String>,
        unit: &'static str,
        must: Bound,
        aim: Bound,
        measured: Option<f64>,
    ) -> Self {
        Self { figure: figure.into(), must: Some(must), aim: Some(aim), unit, measured, ceiling: None }
    }

    fn under(self, ceiling: Option<f64>) -> Self {
        Self { ceiling, ..self }
    }

    fn verdict(&self) -> Verdict {
        let Some(measured) = self.measured else { return Verdict::NotMeasured };
        let holds = |bound: Option<Bound>| bound.is_none_or(|bound| bound.holds(measured));
        match (holds(self.must), holds(self.aim)) {
            (false, _) => Verdict::NotMet,
            // With no must the aim is all there is.
            (true, false) if self.must.is_none() => Verdict::NotMet,
            (true, false) => Verdict::Met,
            (true, true) if self.aim.is_none() => Verdict::Met,
            (true, true) => Verdict::AimMet,
        }
    }

    fn row(&self) -> String {
        let bound = |bound: Option<Bound>| bound.map_or_else(String::new, |bound| bound.text(self.unit));
        let value = |value: Option<f64>| {
            value.map_or_else(String::new, |value| format!("{}{}", significant(value), self.unit))
        };
        let Self { figure, must, aim, measured, ceiling, .. } = self;
        format!(
            "| {figure} | {} | {} | {} | {} | {} |\n",
            bound(*must),
            bound(*aim),
            value(*measured),
            self.verdict().word(),
            value(*ceiling)
        )
    }
}

/// Every target of the design with what was measured.
pub(super) fn table(results: &Results) -> String {
    let mut text =
        "| figure | must | aim | measured | | bare replicas |\n|---|---|---|---|---|---|\n".to_owned();
    for target in targets(results) {
        text.push_str(&target.row());
    }
    text.push_str(
        "\nThe last column is what is left of a write with nothing of Mneme in it: see [the ceiling of a write](#the-ceiling-of-a-write). \
         Beside Mnesia it is Mneme's figure times what bare replicas reach in turns with it.\n",
    );
    text
}

fn targets(results: &Results) -> Vec<Target> {
    let matrix = |system, operation, clients| {
        Group::find(results, CellPart::Matrix, (system, operation, Shape::Single, clients))
    };
    let writes = |system, clients| matrix(system, Operation::Write, clients);
    let p50_ms = |system| writes(system, 1).map(|group| group.latency(|latency| latency.p50_us) / 1_000.0);
    let mnesia = writes(System::MnesiaTransaction, CLIENTS);
    let beside_mnesia = |group: Option<Group<'_>>| group?.rate_beside(mnesia.as_ref()?);
    let shared = [Shape::Batch, Shape::Pipeline, Shape::Streams].into_iter().filter_map(|shape| {
        let wanted = (System::MnemeFsync, Operation::Write, shape, CLIENTS);
        beside_mnesia(Group::find(results, CellPart::Groups, wanted))
    });
    let batches = (System::MnemeFsync, Operation::Write, Shape::Batch, CLIENTS);
    let batches = Group::find(results, CellPart::Groups, batches);
    let reads =
        |system| Group::find(results, CellPart::Http, (system, Operation::Read, Shape::Single, CLIENTS));
    let large = large(results);
    let is_grown = results.growth.iter().any(|growth| growth.records >= MANY_RECORDS);
    let growth = results.growth.iter().map(|growth| growth.cpu_beside_small).reduce(f64::max);
    let bare = Ceiling::of(results);
    let mut targets = vec![
        Target::new(
            "servers' CPU of an acknowledged durable write, three nodes, 32 clients",
            " us",
            AtMost(38.0),
            AtMost(19.0),
            writes(System::MnemeFsync, CLIENTS).map(|group| group.median(|measured| measured.servers_cpu_us)),
        )
        .under(bare.cpu_us),
        Target::new(
            "acknowledged writes a second beside Mnesia, fsync, 32 clients",
            "x",
            AtLeast(3.0),
            AtLeast(5.0),
            beside_mnesia(writes(System::MnemeFsync, CLIENTS)),
        )
        .under(product(beside_mnesia(writes(System::MnemeFsync, CLIENTS)), bare.rate_beside)),
        Target::new(
            "the same, 128 clients",
            "x",
            AtLeast(3.0),
            AtLeast(5.0),
            writes(System::MnemeFsync, MANY_CLIENTS)
                .and_then(|group| group.rate_beside(&writes(System::MnesiaTransaction, MANY_CLIENTS)?)),
        ),
        Target {
            figure: "32 clients in batches of 32, pipelined or in streams, whichever is most, beside Mnesia's single writes".to_owned(),
            must: None,
            aim: Some(AtLeast(30.0)),
            unit: "x",
            measured: shared.reduce(f64::max),
            ceiling: product(beside_mnesia(batches), bare.batch_rate_beside),
        },
        one_client(p50_ms(System::MnemeFsync), p50_ms(System::MnesiaTransaction)).under(bare.p50_ms),
        Target::new(
            "GET beside bare hyper answering the same bytes, 32 clients",
            "x",
            AtLeast(0.8),
            AtLeast(0.9),
            reads(System::MnemeFsync).and_then(|group| group.rate_beside(&reads(System::Hyper)?)),
        ),
        Target::new(
            "restart with 1,000,000 records, ready",
            " s",
            AtMost(3.0),
            AtMost(1.5),
            large.map(|large| large.restart_ready_seconds),
        ),
        Target::new(
            "an empty node caught up with 1,000,000 records",
            " s",
            AtMost(15.0),
            AtMost(5.0),
            large.map(|large| large.empty_node_ready_seconds),
        ),
        Target::new(
            "memory of a record beyond key and value",
            " B",
            AtMost(200.0),
            AtMost(120.0),
            large.map(|large| large.memory_bytes_per_record_beyond_key_and_value),
        ),
        tombstone(large),
        Target::new(
            "servers' CPU of a write at 1,000,000 records beside 10,000 (10,000,000 is not measured)",
            "x",
            AtMost(1.3),
            AtMost(1.1),
            growth.filter(|_| is_grown),
        ),
    ];
    targets.extend(expiry(results));
    targets.push(file(results));
    targets
}

fn large(results: &Results) -> Option<&Large> {
    results.large.as_ref().filter(|large| large.records >= MANY_RECORDS)
}

/// A tombstone names its key by a hash; what it may take is told beyond the key all the same, as of a record.
fn tombstone(large: Option<&Large>) -> Target {
    let key = large.map_or(0, |large| large.key_bytes);
    let beyond = large.map(|large| large.memory_bytes_per_tombstone - large.key_bytes as f64);
    let figure =
        format!("memory of a tombstone with all that finds and files it, beyond a key of {key} bytes");
    Target::new(figure, " B", AtMost(64.0), AtMost(48.0), beyond)
}

/// The bound is what Mnesia took in the same run; without it what it took when the target was set.
fn one_client(mneme: Option<f64>, mnesia: Option<f64>) -> Target {
    let bound = mnesia.map_or(0.36, |ms| (ms * 100.0).round() / 100.0);
    let figure = "one client, p50 of an acknowledged durable write (must: Mnesia's of this run)";
    Target::new(figure, " ms", AtMost(bound), AtMost(0.25), mneme)
}

fn expiry(results: &Results) -> [Target; 2] {
    let beside_quiet = |of: fn(&ExpiryTurn) -> &Percentiles| {
        let expiry = results.expiry.as_ref().filter(|expiry| expiry.records >= MANY_RECORDS)?;
        median(expiry.turns.iter().filter_map(|turn| turn.beside_quiet(of(turn))))
    };
    let target = |figure: &str, measured| Target::new(figure, "x", AtMost(2.0), AtMost(1.3), measured);
    [
        target(
            "1,000,000 records expiring in one second: read p99 beside the quiet p99",
            beside_quiet(|turn| &turn.expiring),
        ),
        target("the same while they are dropped, a minute later", beside_quiet(|turn| &turn.dropping)),
    ]
}

fn file(results: &Results) -> Target {
    let share = large(results).map(|large| {
        let rewritten = &large.rewritten;
        rewritten.file_bytes_max as f64 / (2.0 * rewritten.live_bytes as f64 + FILE_EXTRA_BYTES)
    });
    Target {
        figure: "file after sustained rewriting, of twice the live data and 64 MiB".to_owned(),
        must: Some(AtMost(1.0)),
        aim: None,
        unit: "x",
        measured: share,
        ceiling: None,
    }
}

/// What bare replicas reach: processor time of a write, rates beside Mneme's in turns, latency of one client.
struct Ceiling {
    cpu_us: Option<f64>,
    rate_beside: Option<f64>,
    batch_rate_beside: Option<f64>,
    p50_ms: Option<f64>,
}

impl Ceiling {
    fn of(results: &Results) -> Self {
        let group = |system, shape, clients| {
            Group::find(results, CellPart::Replicas, (system, Operation::Write, shape, clients))
        };
        let bare = |shape, clients| group(System::BareReplicas, shape, clients);
        let beside = |shape| bare(shape, CLIENTS)?.rate_beside(&group(System::MnemeFsync, shape, CLIENTS)?);
        Self {
            cpu_us: bare(Shape::Single, CLIENTS)
                .map(|group| group.median(|measured| measured.servers_cpu_us)),
            rate_beside: beside(Shape::Single),
            batch_rate_beside: beside(Shape::Batch),
            p50_ms: bare(Shape::Single, 1).map(|group| group.latency(|latency| latency.p50_us) / 1_000.0),
        }
    }
}

fn product(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? * other?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(must: Option<Bound>, aim: Option<Bound>, measured: Option<f64>, expected: Verdict) {
        let target = Target { figure: String::new(), must, aim, unit: "", measured, ceiling: None };
        assert_eq!(target.verdict(), expected, "{must:?} {aim:?} {measured:?}");
    }

    #[test]
    fn a_figure_is_held_against_its_bounds() {
        let (must, aim) = (Some(AtMost(38.0)), Some(AtMost(19.0)));
        check(must, aim, None, Verdict::NotMeasured);
        check(must, aim, Some(38.1), Verdict::NotMet);
        check(must, aim, Some(38.0), Verdict::Met);
        check(must, aim, Some(19.0), Verdict::AimMet);
        check(Some(AtLeast(3.0)), Some(AtLeast(5.0)), Some(2.9), Verdict::NotMet);
        check(Some(AtLeast(3.0)), Some(AtLeast(5.0)), Some(5.0), Verdict::AimMet);
        check(None, Some(AtLeast(30.0)), Some(29.0), Verdict::NotMet);
        check(Some(AtMost(1.0)), None, Some(0.5), Verdict::Met);
    }

    #[test]
    fn every_target_is_measured_by_a_whole_run() {
        let results = super::super::imaginary::results();
        for target in targets(&results) {
            assert_ne!(target.verdict(), Verdict::NotMeasured, "{}", target.figure);
        }
    }

    #[test]
    fn a_target_of_many_records_is_not_met_by_few() {
        let mut results = super::super::imaginary::results();
        results.large.as_mut().expect("a large node").records = 10_000;
        results.growth.retain(|growth| growth.records < MANY_RECORDS);
        results.expiry.as_mut().expect("an expiry").records = 10_000;
        let open = targets(&results).iter().filter(|target| target.verdict() == Verdict::NotMeasured).count();
        assert_eq!(open, 8);
    }

    #[test]
    fn of_several_turns_the_median_counts() {
        let results = super::super::imaginary::results();
        let [expiring, dropping] = expiry(&results).map(|target| target.measured.expect("a ratio"));
        assert!((expiring - 1.4).abs() < 1e-9 && (dropping - 1.4).abs() < 1e-9, "{expiring}, {dropping}");
    }

    #[test]
    fn ratios_are_of_one_round() {
        let results = super::super::imaginary::results();
        let ratio = targets(&results)[1].measured.expect("a ratio");
        // Rates of 40,000 and 10,000 in one round, half of both in the other.
        assert!((ratio - 4.0).abs() < 1e-9, "{ratio}");
        // Where bare replicas do 30,000 beside 20,000.
        let ceiling = targets(&results)[1].ceiling.expect("a ceiling");
        assert!((ceiling - 6.0).abs() < 1e-9, "{ceiling}");
    }
}
