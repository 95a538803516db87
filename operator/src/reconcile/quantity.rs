//! Quantities, as far as they are compared: `1Gi` is `1024Mi`, and the API server writes `0.5` as `500m`.

/// Suffixes with what they stand for, in billionths.
const UNITS: [(&str, i128); 16] = [
    ("Ki", 1_000_000_000 << 10),
    ("Mi", 1_000_000_000 << 20),
    ("Gi", 1_000_000_000 << 30),
    ("Ti", 1_000_000_000 << 40),
    ("Pi", 1_000_000_000 << 50),
    ("Ei", 1_000_000_000 << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", 1_000_000_000_000),
    ("M", 1_000_000_000_000_000),
    ("G", 1_000_000_000_000_000_000),
    ("T", 1_000_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000_000_000),
    ("", 1_000_000_000),
];

/// A quantity in billionths; `None` for what is none, and for exponents, which nobody writes.
pub fn billionths(text: &str) -> Option<i128> {
    let number_to = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_to);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == suffix)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || whole.len() > 12 || part.len() > 9 || part.contains('.') {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    digits.checked_mul(*unit).map(|scaled| scaled / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        for (left, right) in
            [("1Gi", "1024Mi"), ("0.5", "500m"), ("1", "1000m"), ("1.5Gi", "1536Mi"), ("2k", "2000")]
        {
            assert_eq!(billionths(left), billionths(right), "{left} {right}");
            assert!(billionths(left).is_some());
        }
        assert!(billionths("2Gi") > billionths("2G"));
        for other in ["", "Gi", "x", "1e3", "1.2.3", "-1"] {
            assert_eq!(billionths(other), None, "{other}");
        }
    }
}
