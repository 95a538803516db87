//! Stamps and versions: the total order of the writes of one key.

use std::fmt;

use crate::id::{NodeId, Origin};

/// 48 bits of milliseconds since the Unix epoch, then 16 bits of counter.
///
/// Stamps are per key: no global clock is dragged forward by one node whose clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub const fn at(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// The stamp from its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next stamp; a full counter carries into the milliseconds.
    pub const fn successor(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Version of a value: stamp, then origin as tie-break.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// When, by the writer's node time, but above every version it saw of that key.
    pub stamp: Stamp,
    /// Who.
    pub origin: Origin,
}

impl Version {
    /// The version of a write at `now_ms` on a key whose last known version is `previous`.
    pub fn next(now_ms: u64, previous: Option<Self>, origin: Origin) -> Self {
        let now = Stamp::at(now_ms);
        let stamp = previous.map_or(now, |version| now.max(version.stamp.successor()));
        Self { stamp, origin }
    }

    /// The ETag of this version, quotes included.
    pub fn etag(&self) -> String {
        let stamp = self.stamp.bits();
        let stamp_digits = (64 - stamp.leading_zeros()).div_ceil(4).max(1) as usize;
        // To the byte, so that the text becomes a header without being moved: it is made for every read.
        let mut etag = String::with_capacity(stamp_digits + 35);
        etag.push('"');
        push_hex(&mut etag, stamp, stamp_digits);
        etag.push('-');
        push_hex(&mut etag, self.origin.node.number(), 16);
        push_hex(&mut etag, self.origin.epoch, 16);
        etag.push('"');
        etag
    }

    /// Reads an ETag, quotes included; `None` when it is none of ours.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let (stamp, origin) = etag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if stamp.is_empty() || stamp.len() > 16 || origin.len() != 32 || !is_hex(stamp) || !is_hex(origin) {
            return None;
        }
        Some(Self {
            stamp: Stamp(u64::from_str_radix(stamp, 16).ok()?),
            origin: Origin {
                node: NodeId::new(u64::from_str_radix(&origin[..16], 16).ok()?),
                epoch: u64::from_str_radix(&origin[16..], 16).ok()?,
            },
        })
    }
}

/// Appends the last `digits` hexadecimal digits of `number`, 16 at most.
fn push_hex(text: &mut String, number: u64, digits: usize) {
    // All of them, without a branch, and the last are taken.
    let bytes = number.to_be_bytes();
    let hex: [u8; 16] = std::array::from_fn(|place| {
        let byte = bytes[place / 2];
        let digit = if place.is_multiple_of(2) { byte >> 4 } else { byte & 0xf };
        digit + if digit < 10 { b'0' } else { b'a' - 10 }
    });
    text.push_str(std::str::from_utf8(&hex[16 - digits..]).unwrap_or_default());
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.stamp.ms(), self.stamp.bits() & 0xffff, self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: u64) -> Origin {
        Origin { node: NodeId::new(number), epoch: 7 }
    }

    #[test]
    fn a_write_is_above_every_version_its_node_saw_of_the_key() {
        let ahead = Version { stamp: Stamp::at(900), origin: origin(9) };
        let next = Version::next(100, Some(ahead), origin(1));
        assert!(next > ahead);
        assert_eq!(next.stamp.ms(), 900);
        assert_eq!(Version::next(1000, Some(ahead), origin(1)).stamp, Stamp::at(1000));
    }

    #[test]
    fn an_etag_reads_back_and_foreign_ones_do_not() {
        let version = Version { stamp: Stamp::from_bits(0x1234_5678_9abc), origin: origin(u64::MAX) };
        assert_eq!(version.etag(), "\"123456789abc-ffffffffffffffff0000000000000007\"");
        assert_eq!(Version::from_etag(&version.etag()), Some(version));
        for bits in [0, 0xf, 0x10, u64::MAX] {
            let version = Version { stamp: Stamp::from_bits(bits), ..version };
            assert_eq!(version.etag(), format!("\"{bits:x}-{}\"", version.origin));
        }
        for foreign in ["", "\"\"", "abc", "\"1-2\"", "W/\"1-2\"", "\"+1-00000000000000010000000000000007\""]
        {
            assert_eq!(Version::from_etag(foreign), None, "{foreign}");
        }
    }
}
