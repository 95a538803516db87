//! Durations as people write them: `500ms`, `30s`, `15m`, `12h`, `30d`.

use std::time::Duration;

/// Longest duration that is taken for meant, in milliseconds: ten years.
pub const DURATION_MS_MAX: u64 = 3_650 * 86_400_000;

/// Units, longest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a whole number with a unit.
    #[error("a duration is a whole number and a unit: 500ms, 30s, 15m, 12h or 30d")]
    Shape,
    /// Zero.
    #[error("a duration of zero is not allowed")]
    Zero,
    /// More than ten years.
    #[error("a duration is at most 3650d")]
    TooLong,
}

/// Reads a duration.
///
/// # Errors
///
/// [`DurationError`] for another shape, zero, and more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Shape)?;
    if number.is_empty() {
        return Err(DurationError::Shape);
    }
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    match number.checked_mul(*unit_ms) {
        Some(0) => Err(DurationError::Zero),
        Some(ms) if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err(DurationError::TooLong),
    }
}

/// Writes a duration in the longest unit that holds it exactly.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let exact = UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(u128::from(*unit_ms)) && ms > 0);
    exact.map_or_else(|| format!("{ms}ms"), |(unit, unit_ms)| format!("{}{unit}", ms / u128::from(*unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for text in ["500ms", "30s", "15m", "12h", "30d", "1500ms"] {
            let duration = parse_duration(text).expect("well-formed");
            assert_eq!(format_duration(duration), text);
        }
        assert_eq!(parse_duration("90s").map(format_duration).as_deref(), Ok("90s"));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "5", "5 s", "-5s", "1.5h", "5S", "5sm", "+5s"] {
            assert_eq!(parse_duration(text), Err(DurationError::Shape), "{text}");
        }
        assert_eq!(parse_duration("0s"), Err(DurationError::Zero));
        for text in ["3651d", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), Err(DurationError::TooLong), "{text}");
        }
    }
}
