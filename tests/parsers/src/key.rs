//! Keys: from a URL, from their encoding, from JSON.

use mneme_api::{KEY_BYTES_MAX, KEY_SEGMENTS_MAX, Key, SEGMENT_BYTES_MAX};

/// Reads the input as the tail of a path, as an encoding and as JSON.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    if let Ok(path) = std::str::from_utf8(input) {
        let key = Key::from_path(path).ok();
        assert_eq!(key.as_ref().map(Key::segments), expected(path), "taken is what the contract has");
        key.iter().for_each(check_key);
    }
    let encoded = Key::from_encoded(input).ok();
    if let Some(key) = &encoded {
        assert_eq!(key.encoded(), input, "a key has one encoding");
        check_key(key);
    }
    if let Ok(key) = serde_json::from_slice::<Key>(input) {
        check_key(&key);
    }
    // Order, of the two halves as segments.
    let (one, other) = input.split_at(input.len() / 2);
    let split = |half: &[u8]| half.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (one, other) = (split(one), split(other));
    if let (Ok(first), Ok(second)) = (Key::from_segments(&one), Key::from_segments(&other)) {
        assert_eq!(first.cmp(&second), one.cmp(&other), "the order of encodings is the order of segments");
    }
}

/// The segments of a path, by the words of the contract; `None` when it is no key.
pub(crate) fn expected(path: &str) -> Option<Vec<Vec<u8>>> {
    let segments: Vec<Vec<u8>> = path.split('/').map(decoded).collect::<Option<_>>()?;
    let bytes: usize = segments.iter().map(Vec::len).sum();
    let is_segment = |segment: &Vec<u8>| (1..=SEGMENT_BYTES_MAX).contains(&segment.len());
    (segments.len() <= KEY_SEGMENTS_MAX && bytes <= KEY_BYTES_MAX && segments.iter().all(is_segment))
        .then_some(segments)
}

/// A segment's bytes; `None` when its percent-encoding is invalid.
pub(crate) fn decoded(segment: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &tail[2..];
    }
    Some(bytes)
}

/// What holds for every key there is.
#[track_caller]
pub(crate) fn check_key(key: &Key) {
    let segments = key.segments();
    let bytes: usize = segments.iter().map(Vec::len).sum();
    assert!((1..=KEY_SEGMENTS_MAX).contains(&segments.len()) && bytes <= KEY_BYTES_MAX);
    assert!(segments.iter().all(|segment| (1..=SEGMENT_BYTES_MAX).contains(&segment.len())));
    assert_eq!((key.bytes(), key.byte_len()), (bytes, bytes));
    assert_eq!(Key::from_segments(&segments).as_ref(), Ok(key));
    assert_eq!(Key::from_encoded(key.encoded()).as_ref(), Ok(key));
    let path = key.to_path();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte);
    assert!(path.bytes().all(is_plain), "a key's path is never a pattern");
    assert_eq!(Key::from_path(&path).as_ref(), Ok(key));
    let json = serde_json::to_string(key).expect("a key is JSON");
    assert_eq!(serde_json::from_str::<Key>(&json).ok().as_ref(), Some(key));
}
