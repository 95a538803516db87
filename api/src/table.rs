//! Tables: names, kinds, settings.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration::{format_duration, parse_duration};

/// Ceiling of `maxValueBytes`: 4 MiB.
///
/// A value travels to peers whole: one above what may wait for a peer (8 MiB) would never be pushed, one above the
/// longest message between nodes (64 MiB) would break their link again and again.
pub const VALUE_BYTES_MAX: u64 = 4 << 20;

/// Name of a table. Shape: `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Arc<str>);

/// A text that is no table name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a table name is 1 to 63 lowercase letters, digits and hyphens, and begins and ends with a letter or digit"
)]
pub struct TableNameError;

impl TableName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_inner = |byte: &u8| is_word(byte) || *byte == b'-';
        let has_ends = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
        if bytes.len() <= 63 && has_ends && bytes.iter().all(is_inner) {
            Ok(Self(text.into()))
        } else {
            Err(TableNameError)
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a delete means in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Final: a deleted key cannot live again, so sign-out stays sign-out. Keys are never reused.
    #[default]
    Session,
    /// The last writer wins; a deleted key may be put again.
    Cache,
}

/// What happens to a put when the table is at `max_bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is refused (507).
    #[default]
    Reject,
    /// The records nearest to their expiry make room.
    EvictNearestExpiry,
}

/// Settings of a table, as the configuration file and the custom resource have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableConfig {
    /// Name.
    pub name: TableName,
    /// Kind; fixed at first use.
    #[serde(default)]
    pub kind: TableKind,
    /// Idle time to live of a put without one. Default `30m`; at most `maxAge`.
    #[serde(default = "default_ttl", with = "text")]
    pub default_ttl: Duration,
    /// Longest life of a record, whatever touches it. Default `30d`.
    #[serde(default = "default_max_age", with = "text")]
    pub max_age: Duration,
    /// Bytes of a value, at most. Default 262144; itself at most 4194304 ([`VALUE_BYTES_MAX`]).
    #[serde(default = "default_max_value_bytes")]
    pub max_value_bytes: u64,
    /// Bytes of live keys and values, at most; 0 is this table's share of 70 % of the memory limit.
    #[serde(default)]
    pub max_bytes: u64,
    /// What a put meets at `maxBytes`. Default `reject`.
    #[serde(default)]
    pub when_full: WhenFull,
    /// By how much a touch may store a later deadline than asked for, so that the next touches
    /// need no write. Default a sixteenth of the ttl, at most `60s`.
    #[serde(default, with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub touch_resolution: Option<Duration>,
}

fn default_ttl() -> Duration {
    Duration::from_secs(30 * 60)
}

fn default_max_age() -> Duration {
    Duration::from_secs(30 * 86_400)
}

fn default_max_value_bytes() -> u64 {
    256 * 1024
}

/// Settings that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableConfigError {
    /// The idle time is longer than the longest life.
    #[error("table {0}: defaultTtl is longer than maxAge")]
    TtlAboveMaxAge(TableName),
    /// Touches would be rounded up by more than the idle time.
    #[error("table {0}: touchResolution is longer than defaultTtl")]
    CoarseTouches(TableName),
    /// No value would fit.
    #[error("table {0}: maxValueBytes is 0")]
    NoValue(TableName),
    /// Values would be too large to travel.
    #[error("table {0}: maxValueBytes is above {VALUE_BYTES_MAX} (4 MiB)")]
    LargeValues(TableName),
}

impl TableConfig {
    /// A table with default settings.
    pub fn new(name: TableName) -> Self {
        Self {
            name,
            kind: TableKind::default(),
            default_ttl: default_ttl(),
            max_age: default_max_age(),
            max_value_bytes: default_max_value_bytes(),
            max_bytes: 0,
            when_full: WhenFull::default(),
            touch_resolution: None,
        }
    }

    /// Checks what the single fields cannot say.
    ///
    /// # Errors
    ///
    /// [`TableConfigError`], naming the table and the fields.
    pub fn validate(&self) -> Result<(), TableConfigError> {
        if self.default_ttl > self.max_age {
            return Err(TableConfigError::TtlAboveMaxAge(self.name.clone()));
        }
        if self.touch_resolution.is_some_and(|resolution| resolution > self.default_ttl) {
            return Err(TableConfigError::CoarseTouches(self.name.clone()));
        }
        if self.max_value_bytes == 0 {
            return Err(TableConfigError::NoValue(self.name.clone()));
        }
        if self.max_value_bytes > VALUE_BYTES_MAX {
            return Err(TableConfigError::LargeValues(self.name.clone()));
        }
        Ok(())
    }
}

/// A duration as text, for serde.
mod text {
    use super::{Deserialize, Deserializer, Duration, Serializer, format_duration, parse_duration};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An optional duration as text, for serde.
mod optional_text {
    use super::{Deserializer, Duration, Serializer, text};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => text::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        text::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for name in ["a", "0", "sessions", "a-b", &"a".repeat(63)] {
            assert!(name.parse::<TableName>().is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64), "ä"] {
            assert!(name.parse::<TableName>().is_err(), "{name}");
        }
    }

    #[test]
    fn settings_have_the_documented_defaults_and_refuse_unknown_fields() {
        let config: TableConfig = serde_json::from_str(r#"{"name":"sessions"}"#).expect("well-formed");
        assert_eq!(config, TableConfig::new("sessions".parse().expect("well-formed")));
        assert_eq!(config.max_value_bytes, 262_144);
        let unknown = serde_json::from_str::<TableConfig>(r#"{"name":"sessions","ttl":"5m"}"#);
        assert!(unknown.is_err());
        let text = serde_json::to_string(&config).expect("serializable");
        assert!(text.contains(r#""defaultTtl":"30m","maxAge":"30d""#), "{text}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let mut config = TableConfig::new("t".parse().expect("well-formed"));
        assert_eq!(config.validate(), Ok(()));
        config.default_ttl = config.max_age + Duration::from_secs(1);
        assert_eq!(config.validate(), Err(TableConfigError::TtlAboveMaxAge(config.name.clone())));
    }

    #[test]
    fn values_have_a_ceiling() {
        let mut config = TableConfig::new("t".parse().expect("well-formed"));
        config.max_value_bytes = VALUE_BYTES_MAX;
        assert_eq!(config.validate(), Ok(()));
        config.max_value_bytes += 1;
        let error = config.validate().expect_err("too large").to_string();
        assert!(error.contains("maxValueBytes") && error.contains("4194304"), "{error}");
    }
}
