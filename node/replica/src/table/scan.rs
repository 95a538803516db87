//! Ordered scans: a page of what matches a pattern, merged from all shards.
//!
//! A scan starts at the pattern's literal prefix, so `user/42/**` costs what it finds. It takes a
//! shard's lock for a few dozen keys at a time and never holds two: a page is no snapshot, a
//! writer never waits for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

use mneme_api::{Key, Pattern};

use super::entry::Block;
use super::{Found, Table};
use crate::id::KeyHash;

/// Keys that one page looks at, at most: a pattern that matches little answers short pages with a
/// cursor instead of burning a core.
const KEYS_EXAMINED_MAX: usize = 20_000;

/// Keys taken from a shard under one lock.
const CHUNK_KEYS: usize = 32;

/// Some of the records that match.
#[derive(Debug, Default)]
pub struct Page {
    /// In key order.
    pub records: Vec<(Key, Found)>,
    /// Where the next page goes on; `None` at the end. A short page may have one.
    pub resume_after: Option<Key>,
}

/// Keys of one shard, a chunk at a time.
struct Cursor {
    shard: usize,
    chunk: std::vec::IntoIter<Block>,
    last: Option<Block>,
    is_at_end: bool,
}

impl Table {
    /// The records that match `pattern` after key `after`, at most `limit`, at node time `now_ms`.
    pub fn scan(&self, pattern: &Pattern, after: Option<&Key>, limit: usize, now_ms: u64) -> Page {
        let mut cursors: Vec<Cursor> = (0..self.shards.len()).map(Cursor::new).collect();
        let mut heap = BinaryHeap::new();
        for (index, cursor) in cursors.iter_mut().enumerate() {
            if let Some(block) = cursor.next(self, pattern, after) {
                heap.push(Reverse((block, index)));
            }
        }
        let mut page = Page::default();
        let mut examined = 0;
        while let Some(Reverse((block, index))) = heap.pop() {
            examined += 1;
            let key = block.key();
            if pattern.matches_encoded(key)
                && let Some((key, found)) = self.readable(key, now_ms)
            {
                page.records.push((key, found));
            }
            if page.records.len() >= limit || examined >= KEYS_EXAMINED_MAX {
                page.resume_after = Key::from_encoded(block.key()).ok();
                break;
            }
            if let Some(block) = cursors[index].next(self, pattern, after) {
                heap.push(Reverse((block, index)));
            }
        }
        page
    }

    fn readable(&self, encoded: &[u8], now_ms: u64) -> Option<(Key, Found)> {
        let key = Key::from_encoded(encoded).ok()?;
        let hash = KeyHash::of(&key);
        let shard = self.shards[super::shard_of(hash.number())].read();
        let entry = shard.live(hash).filter(|entry| entry.deadline_ms() > now_ms)?;
        let found = entry.found(&self.origins);
        Some((key, found))
    }
}

impl Cursor {
    fn new(shard: usize) -> Self {
        Self { shard, chunk: Vec::new().into_iter(), last: None, is_at_end: false }
    }

    fn next(&mut self, table: &Table, pattern: &Pattern, after: Option<&Key>) -> Option<Block> {
        if self.chunk.len() == 0 && !self.is_at_end {
            self.refill(table, pattern.prefix(), after);
        }
        self.chunk.next()
    }

    fn refill(&mut self, table: &Table, prefix: &[u8], after: Option<&Key>) {
        let after = after.map(Key::encoded).filter(|after| *after >= prefix);
        let start = match (&self.last, after) {
            (Some(last), _) => Bound::Excluded(last.key()),
            (None, Some(after)) => Bound::Excluded(after),
            (None, None) => Bound::Included(prefix),
        };
        let chunk: Vec<Block> = {
            let shard = table.shards[self.shard].read();
            shard
                .blocks_from(start)
                .take_while(|block| block.key().starts_with(prefix))
                .take(CHUNK_KEYS)
                .cloned()
                .collect()
        };
        self.is_at_end = chunk.len() < CHUNK_KEYS;
        self.last = chunk.last().cloned();
        self.chunk = chunk.into_iter();
    }
}
