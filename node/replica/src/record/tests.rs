//! The merge is a join: property tests of its laws for both table kinds.

use proptest::prelude::*;

use super::*;
use crate::id::{NodeId, Origin};
use crate::version::Stamp;

fn version() -> impl Strategy<Value = Version> {
    // Few stamps and origins, so that ties and equal bases happen.
    (1u64..6, 1u64..4).prop_map(|(ms, node)| Version {
        stamp: Stamp::at(ms),
        origin: Origin { node: NodeId::new(node), epoch: 1 },
    })
}

/// A value register whose content follows from its version, as in life: one write has one content.
fn value_register() -> impl Strategy<Value = ValueRegister> {
    (version(), 0u64..4).prop_map(|(version, bury)| {
        let seed = version.stamp.ms() + version.origin.node.number();
        let is_deleted = seed % 3 == 0;
        let body = if is_deleted { Body::Deleted } else { Body::Live(Value::new("", &seed.to_le_bytes())) };
        let absolute_deadline_ms = if is_deleted { 0 } else { 10 + seed };
        ValueRegister {
            version,
            sequence: seed,
            absolute_deadline_ms,
            bury_until_ms: bury,
            body,
            unknown: None,
        }
    })
}

fn touch_register() -> impl Strategy<Value = TouchRegister> {
    (version(), 1u64..6, 1u64..4, 1u64..4).prop_map(|(base, idle_deadline_ms, node, sequence)| {
        let origin = Origin { node: NodeId::new(node), epoch: 1 };
        TouchRegister { base, idle_deadline_ms, dot: Dot { origin, sequence } }
    })
}

fn record() -> impl Strategy<Value = Record> {
    (prop::option::of(value_register()), prop::option::of(touch_register()))
        .prop_map(|(value, touch)| Record { value, touch })
}

fn kind() -> impl Strategy<Value = TableKind> {
    prop_oneof![Just(TableKind::Session), Just(TableKind::Cache)]
}

fn joined(kind: TableKind, records: &[&Record]) -> Record {
    let mut result = Record::default();
    for record in records {
        result.merge(kind, record);
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn merge_commutes(kind in kind(), a in record(), b in record()) {
        prop_assert_eq!(joined(kind, &[&a, &b]), joined(kind, &[&b, &a]));
    }

    #[test]
    fn merge_associates(kind in kind(), a in record(), b in record(), c in record()) {
        let right = joined(kind, &[&b, &c]);
        prop_assert_eq!(joined(kind, &[&joined(kind, &[&a, &b]), &c]), joined(kind, &[&a, &right]));
    }

    #[test]
    fn merge_is_idempotent(kind in kind(), a in record(), b in record()) {
        let mut once = joined(kind, &[&a, &b]);
        let twice = once.clone();
        prop_assert!(!once.merge(kind, &b));
        prop_assert!(!once.merge(kind, &twice));
        prop_assert_eq!(once, twice);
    }

    /// Whatever is merged, what was merged before is still included.
    #[test]
    fn merge_is_monotone(kind in kind(), a in record(), b in record()) {
        let mut both = joined(kind, &[&a, &b]);
        prop_assert!(!both.merge(kind, &a), "the result does not include its first part");
    }

    /// No order, duplication or batching of deliveries changes the result.
    #[test]
    fn any_delivery_gives_the_same_state(
        kind in kind(),
        records in prop::collection::vec(record(), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        split in any::<prop::sample::Index>(),
    ) {
        let plain = joined(kind, &records.iter().collect::<Vec<_>>());
        // Any order with repeats, then the rest; in two parts that are joined at the end.
        let mut delivered: Vec<&Record> = order.iter().map(|index| index.get(&records)).collect();
        delivered.extend(records.iter().rev());
        let (first, second) = delivered.split_at(split.index(delivered.len()));
        let (first, second) = (joined(kind, first), joined(kind, second));
        prop_assert_eq!(joined(kind, &[&second, &first]), plain);
    }

    #[test]
    fn deletion_always_wins_in_session_tables(records in prop::collection::vec(record(), 1..6)) {
        let is_any_deleted = records.iter().any(Record::is_deleted);
        let result = joined(TableKind::Session, &records.iter().collect::<Vec<_>>());
        prop_assert_eq!(result.is_deleted(), is_any_deleted);
        prop_assert!(!is_any_deleted || result.deadline_ms() == 0);
    }

    /// A touch changes neither the value nor its version, and never ends a session early.
    #[test]
    fn a_touch_never_loses_a_value_nor_ends_a_session_early(
        kind in kind(),
        value in value_register(),
        first in touch_register(),
        later_ms in 0u64..9,
        dot in 1u64..9,
    ) {
        let before = joined(kind, &[&Record { value: Some(value.clone()), touch: Some(first) }]);
        // A touch keeps the base; only a shortening starts a new one.
        let idle_deadline_ms = first.idle_deadline_ms + later_ms;
        let touch = TouchRegister { idle_deadline_ms, dot: Dot { sequence: dot, ..first.dot }, ..first };
        let after = joined(kind, &[&before, &Record { value: None, touch: Some(touch) }]);
        prop_assert_eq!(after.value.as_ref(), Some(&value));
        prop_assert!(after.deadline_ms() >= before.deadline_ms());
    }

    #[test]
    fn bury_until_never_shrinks(kind in kind(), a in value_register(), b in value_register()) {
        let mut merged = a.clone();
        merged.merge(kind, &b);
        prop_assert_eq!(merged.bury_until_ms, a.bury_until_ms.max(b.bury_until_ms));
    }
}
