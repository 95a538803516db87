//! Keys of records.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use memchr::{memchr, memchr_iter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Segments of a key, at most.
pub const KEY_SEGMENTS_MAX: usize = 16;
/// Bytes of one segment, at most.
pub const SEGMENT_BYTES_MAX: usize = 255;
/// Bytes of all segments together, at most.
pub const KEY_BYTES_MAX: usize = 512;

/// What may stand in a path segment as it is; `*` may not, so that a key is never a pattern.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What follows a zero byte of a segment.
const ESCAPE: u8 = 0xff;
/// What ends a segment.
const END: [u8; 2] = [0, 1];

/// Key of one record. Shape: 1 to 16 segments of 1 to 255 bytes, 512 bytes in all.
///
/// Held in an encoding whose bytewise order is the order of keys, segment by segment: in a segment
/// a zero byte is written `00 ff`, and every segment ends with `00 01`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// A key that breaks a rule; never contains the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No segment at all.
    #[error("a key has at least one segment")]
    NoSegment,
    /// More segments than allowed.
    #[error("a key has at most {KEY_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// An empty segment.
    #[error("segment {0} of the key is empty")]
    EmptySegment(usize),
    /// A segment that is too long.
    #[error("segment {0} of the key is longer than {SEGMENT_BYTES_MAX} bytes")]
    LongSegment(usize),
    /// All segments together are too long.
    #[error("the key is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("segment {0} of the key has invalid percent-encoding")]
    PercentEncoding(usize),
    /// Bytes that are no encoded key.
    #[error("the encoded key is malformed")]
    Encoding,
}

impl Key {
    /// A key from its segments.
    ///
    /// # Errors
    ///
    /// Every way to break the shape has its own [`KeyError`]; segments are counted from 1.
    pub fn from_segments<S: AsRef<[u8]>>(segments: impl IntoIterator<Item = S>) -> Result<Self, KeyError> {
        let mut builder = Builder { encoded: Vec::with_capacity(64), ..Builder::default() };
        for segment in segments {
            builder.push(segment.as_ref())?;
        }
        builder.finish()
    }

    /// A key from the tail of a URL path: split at `/`, then each segment percent-decoded.
    ///
    /// # Errors
    ///
    /// As [`Key::from_segments`], and [`KeyError::PercentEncoding`].
    pub fn from_path(path: &str) -> Result<Self, KeyError> {
        let mut builder =
            Builder { encoded: Vec::with_capacity(path.len() + END.len()), ..Builder::default() };
        for segment in path.split('/') {
            let number = builder.count + 1;
            builder.push(&decode_segment(segment).ok_or(KeyError::PercentEncoding(number))?)?;
        }
        builder.finish()
    }

    /// A key from its encoding, as it is stored and sent.
    ///
    /// # Errors
    ///
    /// [`KeyError::Encoding`] for bytes that no key has, else as [`Key::from_segments`].
    pub fn from_encoded(encoded: &[u8]) -> Result<Self, KeyError> {
        let (mut rest, mut count, mut bytes) = (encoded, 0, 0);
        if rest.is_empty() {
            return Err(KeyError::NoSegment);
        }
        while !rest.is_empty() {
            let (length, taken) = segment_length(rest).ok_or(KeyError::Encoding)?;
            count += 1;
            bytes += length;
            check_lengths(length, count, bytes)?;
            rest = &rest[taken..];
        }
        Ok(Self(encoded.into()))
    }

    /// The encoding: bytewise order is key order.
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// Bytes of all segments, as limits count them.
    pub fn bytes(&self) -> usize {
        Self::bytes_of_encoded(&self.0)
    }

    /// As [`Key::bytes`], of a key's encoding.
    pub fn bytes_of_encoded(encoded: &[u8]) -> usize {
        // A zero in a segment and the end of a segment take two bytes each.
        let extra = |zero| 1 + usize::from(encoded.get(zero + 1) == Some(&END[1]));
        encoded.len() - memchr_iter(0, encoded).map(extra).sum::<usize>()
    }

    /// The segments' bytes.
    pub fn segments(&self) -> Vec<Vec<u8>> {
        let (mut segments, mut segment) = (Vec::new(), Vec::new());
        let mut bytes = self.0.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                0 if bytes.next() == Some(&1) => segments.push(std::mem::take(&mut segment)),
                byte => segment.push(*byte),
            }
        }
        segments
    }

    /// The key as the tail of a URL path.
    pub fn to_path(&self) -> String {
        let escape = |segment: &Vec<u8>| percent_encode(segment, ESCAPED).to_string();
        self.segments().iter().map(escape).collect::<Vec<_>>().join("/")
    }

    /// Bytes of all segments together.
    pub fn byte_len(&self) -> usize {
        self.segments().iter().map(Vec::len).sum()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key may hold a session id: it is never printed.
        write!(f, "Key({} segments)", self.segments().len())
    }
}

/// A key of which some segments are there.
#[derive(Default)]
struct Builder {
    encoded: Vec<u8>,
    count: usize,
    bytes: usize,
}

impl Builder {
    fn push(&mut self, segment: &[u8]) -> Result<(), KeyError> {
        self.count += 1;
        self.bytes += segment.len();
        check_lengths(segment.len(), self.count, self.bytes)?;
        encode_segment(segment, &mut self.encoded);
        Ok(())
    }

    fn finish(self) -> Result<Key, KeyError> {
        if self.count == 0 { Err(KeyError::NoSegment) } else { Ok(Key(self.encoded.into())) }
    }
}

fn check_lengths(length: usize, count: usize, bytes: usize) -> Result<(), KeyError> {
    if count > KEY_SEGMENTS_MAX {
        return Err(KeyError::TooManySegments);
    }
    if length == 0 {
        return Err(KeyError::EmptySegment(count));
    }
    if length > SEGMENT_BYTES_MAX {
        return Err(KeyError::LongSegment(count));
    }
    if bytes > KEY_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    Ok(())
}

/// Appends one segment's encoding, its end included.
pub(crate) fn encode_segment(segment: &[u8], encoded: &mut Vec<u8>) {
    let mut start = 0;
    for zero in memchr_iter(0, segment) {
        encoded.extend_from_slice(&segment[start..=zero]);
        encoded.push(ESCAPE);
        start = zero + 1;
    }
    encoded.extend_from_slice(&segment[start..]);
    encoded.extend_from_slice(&END);
}

/// Length of the first segment and of its encoding; `None` when it is malformed.
pub(crate) fn segment_length(encoded: &[u8]) -> Option<(usize, usize)> {
    let mut escapes = 0;
    for zero in memchr_iter(0, encoded) {
        match *encoded.get(zero + 1)? {
            ESCAPE => escapes += 1,
            next if next == END[1] => return Some((zero - escapes, zero + END.len())),
            _ => return None,
        }
    }
    None
}

/// Percent-decodes a segment; `None` for a `%` without two hexadecimal digits.
pub(crate) fn decode_segment(segment: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = segment.as_bytes();
    if memchr(b'%', bytes).is_none() {
        return Some(Cow::Borrowed(bytes));
    }
    for (index, _) in segment.match_indices('%') {
        let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        if !is_hex(index + 1) || !is_hex(index + 2) {
            return None;
        }
    }
    Some(percent_decode_str(segment).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(0), Just(1), Just(255), any::<u8>()], 1..6),
            1..5,
        )
    }

    proptest! {
        #[test]
        fn order_of_the_encoding_is_order_of_the_segments(a in segments(), b in segments()) {
            let (key_a, key_b) = (Key::from_segments(&a).expect("short"), Key::from_segments(&b).expect("short"));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
        }

        #[test]
        fn a_key_survives_its_encoding_and_its_path(a in segments()) {
            let key = Key::from_segments(&a).expect("short");
            prop_assert_eq!(&key.segments(), &a);
            prop_assert_eq!(key.bytes(), a.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(Key::from_encoded(key.encoded()), Ok(key.clone()));
            prop_assert_eq!(Key::from_path(&key.to_path()), Ok(key));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = Key::from_encoded(&bytes) {
                prop_assert_eq!(key.encoded(), &bytes[..]);
            }
        }
    }

    #[track_caller]
    fn check_path(path: &str, expected: Result<&[&str], KeyError>) {
        let expected = expected.map(|segments| Key::from_segments(segments).expect("well-formed"));
        assert_eq!(Key::from_path(path), expected);
    }

    #[test]
    fn every_way_to_be_no_key_has_its_own_error() {
        check_path("user/42", Ok(&["user", "42"]));
        check_path("a%2Fb", Ok(&["a/b"]));
        check_path("a+b", Ok(&["a+b"]));
        check_path("", Err(KeyError::EmptySegment(1)));
        check_path("a//b", Err(KeyError::EmptySegment(2)));
        check_path("a/", Err(KeyError::EmptySegment(2)));
        check_path("a/%", Err(KeyError::PercentEncoding(2)));
        check_path("%4", Err(KeyError::PercentEncoding(1)));
        check_path("%zz", Err(KeyError::PercentEncoding(1)));
        check_path(&["a"; 17].join("/"), Err(KeyError::TooManySegments));
        check_path(&"a".repeat(256), Err(KeyError::LongSegment(1)));
        check_path(&["a".repeat(200), "b".repeat(200), "c".repeat(113)].join("/"), Err(KeyError::TooLong));
        assert_eq!(Key::from_segments::<&str>([]), Err(KeyError::NoSegment));
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::from_path("user/secret").expect("well-formed");
        assert_eq!(format!("{key:?}"), "Key(2 segments)");
    }
}
