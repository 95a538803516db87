//! Patterns that select keys.

use crate::key::{
    KEY_BYTES_MAX, KEY_SEGMENTS_MAX, SEGMENT_BYTES_MAX, decode_segment, encode_segment, segment_length,
};

/// One part of a pattern.
#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// A segment, encoded with its end.
    Literal(Vec<u8>),
    /// `*`: exactly one segment.
    One,
    /// `**`, last: one or more segments.
    Rest,
}

/// Which keys. Like a key, where a segment may be `*` (exactly one segment) and the last `**` (one
/// or more).
///
/// Only a segment that is an unencoded `*` is a wildcard; `%2A` is a literal.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Encoding of the literal segments before the first wildcard: where a scan starts.
    prefix: Vec<u8>,
}

/// A pattern that breaks a rule; never contains the pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An empty pattern.
    #[error("a pattern has at least one segment")]
    Empty,
    /// An empty segment.
    #[error("segment {0} of the pattern is empty")]
    EmptySegment(usize),
    /// A segment that is too long.
    #[error("segment {0} of the pattern is longer than {SEGMENT_BYTES_MAX} bytes")]
    LongSegment(usize),
    /// More segments than a key has.
    #[error("a pattern has at most {KEY_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// Literal segments longer than any key.
    #[error("the pattern is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("segment {0} of the pattern has invalid percent-encoding")]
    PercentEncoding(usize),
    /// A `*` inside a longer segment.
    #[error("segment {0} of the pattern: `*` stands for a whole segment; write %2A for the character")]
    StarInSegment(usize),
    /// `**` before the end.
    #[error("segment {0} of the pattern: `**` may only be the last segment")]
    RestNotLast(usize),
}

impl Pattern {
    /// The pattern that every key matches.
    pub fn any() -> Self {
        Self { parts: vec![Part::Rest], prefix: Vec::new() }
    }

    /// A pattern from its text, still percent-encoded.
    ///
    /// # Errors
    ///
    /// Every way to be no pattern has its own [`PatternError`]; segments are counted from 1.
    pub fn from_path(path: &str) -> Result<Self, PatternError> {
        if path.is_empty() {
            return Err(PatternError::Empty);
        }
        let segments: Vec<&str> = path.split('/').take(KEY_SEGMENTS_MAX + 1).collect();
        if segments.len() > KEY_SEGMENTS_MAX {
            return Err(PatternError::TooManySegments);
        }
        let (mut parts, mut bytes) = (Vec::with_capacity(segments.len()), 0);
        for (index, segment) in segments.iter().enumerate() {
            let part = Self::part(segment, index + 1, index + 1 == segments.len(), &mut bytes)?;
            parts.push(part);
        }
        if bytes > KEY_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let literals = parts.iter().map_while(|part| match part {
            Part::Literal(encoded) => Some(encoded.as_slice()),
            Part::One | Part::Rest => None,
        });
        let prefix = literals.collect::<Vec<_>>().concat();
        Ok(Self { parts, prefix })
    }

    fn part(segment: &str, number: usize, is_last: bool, bytes: &mut usize) -> Result<Part, PatternError> {
        match segment {
            "" => return Err(PatternError::EmptySegment(number)),
            "*" => return Ok(Part::One),
            "**" if is_last => return Ok(Part::Rest),
            "**" => return Err(PatternError::RestNotLast(number)),
            segment if segment.contains('*') => return Err(PatternError::StarInSegment(number)),
            _ => {}
        }
        let decoded = decode_segment(segment).ok_or(PatternError::PercentEncoding(number))?;
        if decoded.len() > SEGMENT_BYTES_MAX {
            return Err(PatternError::LongSegment(number));
        }
        *bytes += decoded.len();
        let mut encoded = Vec::with_capacity(decoded.len() + 2);
        encode_segment(&decoded, &mut encoded);
        Ok(Part::Literal(encoded))
    }

    /// Encoding of the literal segments before the first wildcard: every match starts with it.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Whether `key` matches.
    pub fn matches(&self, key: &crate::Key) -> bool {
        self.matches_encoded(key.encoded())
    }

    /// Whether the key with this encoding matches. Linear in the key, without allocation.
    pub fn matches_encoded(&self, encoded: &[u8]) -> bool {
        let mut rest = encoded;
        for part in &self.parts {
            match part {
                Part::Literal(literal) => match rest.strip_prefix(literal.as_slice()) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Part::One => match segment_length(rest) {
                    Some((_, taken)) => rest = &rest[taken..],
                    None => return false,
                },
                Part::Rest => return !rest.is_empty(),
            }
        }
        rest.is_empty()
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({} segments)", self.parts.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Key;

    #[track_caller]
    fn check(pattern: &str, key: &str, expected: bool) {
        let pattern = Pattern::from_path(pattern).expect("well-formed");
        let key = Key::from_path(key).expect("well-formed");
        assert_eq!(pattern.matches(&key), expected);
        assert!(!expected || key.encoded().starts_with(pattern.prefix()));
    }

    #[test]
    fn wildcards_stand_for_whole_segments() {
        check("user/42/**", "user/42/session/a", true);
        check("user/42/**", "user/42/x", true);
        check("user/42/**", "user/42", false);
        check("user/42/**", "user/421/x", false);
        check("user/*/session", "user/42/session", true);
        check("user/*/session", "user/42/43/session", false);
        check("*", "a", true);
        check("*", "a/b", false);
        check("%2A", "%2A", true);
        check("%2A", "a", false);
        check("a+b", "a+b", true);
        check("**", "a/b/c", true);
    }

    #[test]
    fn every_way_to_be_no_pattern_has_its_own_error() {
        let cases = [
            ("", PatternError::Empty),
            ("a//b", PatternError::EmptySegment(2)),
            ("**/a", PatternError::RestNotLast(1)),
            ("a/b*", PatternError::StarInSegment(2)),
            ("***", PatternError::StarInSegment(1)),
            ("a/%2", PatternError::PercentEncoding(2)),
        ];
        for (text, expected) in cases {
            assert_eq!(Pattern::from_path(text), Err(expected));
        }
        assert_eq!(Pattern::from_path(&["a"; 17].join("/")), Err(PatternError::TooManySegments));
    }

    /// The rule written the plain way, to compare with.
    fn naive(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["**"], [_, ..]) => true,
            (["*", pattern @ ..], [_, key @ ..]) => naive(pattern, key),
            ([literal, pattern @ ..], [segment, key @ ..]) => literal == segment && naive(pattern, key),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_plain_rule(
            pattern in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("*")], 1..5),
            has_rest in any::<bool>(),
            key in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..6),
        ) {
            let mut pattern = pattern;
            if has_rest {
                pattern.push("**");
            }
            let parsed = Pattern::from_path(&pattern.join("/")).expect("well-formed");
            let key_parsed = Key::from_segments(&key).expect("well-formed");
            prop_assert_eq!(parsed.matches(&key_parsed), naive(&pattern, &key));
        }
    }
}
