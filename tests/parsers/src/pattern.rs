//! Patterns, and which keys they match.

use mneme_api::{KEY_BYTES_MAX, KEY_SEGMENTS_MAX, Key, Pattern, SEGMENT_BYTES_MAX};

use crate::key::decoded;

/// Reads the input's first line as a pattern, and each other as the path of a key.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let path = lines.next().unwrap_or_default();
    let (parsed, expected) = (Pattern::from_path(path), expected(path));
    assert_eq!(parsed.is_ok(), expected.is_some(), "taken is what the contract has");
    let (Ok(pattern), Some(parts)) = (parsed, expected) else { return };
    assert_eq!(parts.iter().all(|part| matches!(part, Part::Literal(_))), path == path.replace('*', ""));
    for key in lines.filter_map(|path| Key::from_path(path).ok()) {
        let is_match = pattern.matches(&key);
        assert_eq!(is_match, matches(&parts, &key.segments()));
        assert_eq!(is_match, pattern.matches_encoded(key.encoded()));
        let has_prefix = key.encoded().starts_with(pattern.prefix());
        assert!(has_prefix || !is_match, "a scan begins at the prefix and ends behind it");
        assert!(Pattern::any().matches(&key));
    }
}

enum Part {
    Literal(Vec<u8>),
    One,
    Rest,
}

/// The parts of a pattern, by the words of the contract; `None` when it is none.
fn expected(path: &str) -> Option<Vec<Part>> {
    let segments: Vec<&str> = path.split('/').collect();
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for (index, segment) in segments.iter().enumerate() {
        parts.push(match *segment {
            "*" => Part::One,
            "**" if index + 1 == segments.len() => Part::Rest,
            segment if segment.contains('*') => return None,
            segment => {
                let literal = decoded(segment)?;
                bytes += literal.len();
                if !(1..=SEGMENT_BYTES_MAX).contains(&literal.len()) {
                    return None;
                }
                Part::Literal(literal)
            }
        });
    }
    (parts.len() <= KEY_SEGMENTS_MAX && bytes <= KEY_BYTES_MAX).then_some(parts)
}

fn matches(parts: &[Part], segments: &[Vec<u8>]) -> bool {
    match (parts, segments) {
        ([], []) => true,
        ([Part::Rest], [_, ..]) => true,
        ([Part::One, parts @ ..], [_, segments @ ..]) => matches(parts, segments),
        ([Part::Literal(literal), parts @ ..], [segment, segments @ ..]) => {
            literal == segment && matches(parts, segments)
        }
        _ => false,
    }
}
