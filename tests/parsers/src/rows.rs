//! What lies in the file: frames with rows, and what it remembers besides.

use std::sync::Arc;

use mneme_node::storage::frame::{self, Entry, Frames};
use mneme_replica::codec::{decode_meta, encode_meta};
use mneme_replica::effect::PersistItem;
use mneme_replica::record::Row;
use mneme_replica::version_vector::VersionVector;

/// Reads the input as a frame, as entries whose checksum matched, and as what the file remembers besides.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let decoded = frame::decode(1, input);
    assert!(decoded.is_err() || frame::decode(2, input).is_err(), "a frame in another's place is found");
    if let Ok(entries) = frame::entries(input) {
        check_entries(entries, input.len());
    }
    if let Ok(meta) = decode_meta(input) {
        let mut encoded = Vec::new();
        encode_meta(&meta, &mut encoded);
        assert_eq!(decode_meta(&encoded).ok().as_ref(), Some(&meta), "it reads back");
    }
}

fn check_entries(entries: Vec<Entry>, bytes: usize) {
    let (mut items, mut rows, mut claimed) = (Vec::new(), 0, VersionVector::default());
    for entry in entries {
        match entry {
            Entry::Write(write) => {
                rows += write.rows.len();
                items.push(PersistItem::Write(Arc::new(write)));
            }
            Entry::Rows(more) => {
                rows += more.len();
                items.push(PersistItem::Rows(Arc::new(more)));
            }
            Entry::Vector(vector) => items.push(PersistItem::Vector(vector)),
            // Compaction's word, not the replica's.
            Entry::First(_) => {}
        }
    }
    assert!(rows <= bytes, "{rows} rows out of {bytes} bytes");
    items.iter().for_each(|item| item.claim(&mut claimed, 0));
    // Written anew, over as many frames as it takes, they are the same.
    let mut read = Vec::new();
    for frame in Frames::new(items.iter(), 1) {
        read.extend(frame::decode(frame.id, &frame.body).expect("what was written reads"));
    }
    let written: Vec<Said> = items.into_iter().map(Said::of_item).collect();
    let read: Vec<Said> = read.into_iter().filter_map(Said::of_entry).collect();
    assert_eq!(joined(read), joined(written), "entries read back");
}

/// An entry, whichever way it came.
#[derive(Debug, PartialEq)]
enum Said {
    Item(PersistItem),
    Rows(Vec<Row>),
}

impl Said {
    fn of_item(item: PersistItem) -> Self {
        match item {
            PersistItem::Rows(rows) => Self::Rows(rows.to_vec()),
            item => Self::Item(item),
        }
    }

    fn of_entry(entry: Entry) -> Option<Self> {
        match entry {
            Entry::Write(write) => Some(Self::Item(PersistItem::Write(Arc::new(write)))),
            Entry::Rows(rows) => Some(Self::Rows(rows)),
            Entry::Vector(vector) => Some(Self::Item(PersistItem::Vector(vector))),
            Entry::First(_) => None,
        }
    }
}

/// Rows may be written in pieces: what stands side by side is one.
fn joined(all: Vec<Said>) -> Vec<Said> {
    let mut joined: Vec<Said> = Vec::new();
    for said in all {
        match (joined.last_mut(), said) {
            (_, Said::Rows(rows)) if rows.is_empty() => {}
            (Some(Said::Rows(last)), Said::Rows(rows)) => last.extend(rows),
            (_, said) => joined.push(said),
        }
    }
    joined
}
