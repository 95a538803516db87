//! JSON bodies of the client API, as they travel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Key;

/// A key as JSON: an array of segments. A segment that is not UTF-8 is `{"base64":"…"}`.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Binary {
            base64: String,
        }
        let segments = self.segments();
        let mut array = serializer.serialize_seq(Some(segments.len()))?;
        for segment in &segments {
            match std::str::from_utf8(segment) {
                Ok(text) => array.serialize_element(text)?,
                Err(_) => array.serialize_element(&Binary { base64: STANDARD.encode(segment) })?,
            }
        }
        array.end()
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Binary {
            base64: Bytes,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Segment {
            Text(String),
            Binary(Binary),
        }
        // No derived message: it could repeat a session id.
        let segments = Vec::<Segment>::deserialize(deserializer)
            .map_err(|_| D::Error::custom("a key is an array of strings or {\"base64\":\"…\"}"))?;
        let segments = segments.into_iter().map(|segment| match segment {
            Segment::Text(text) => text.into_bytes(),
            Segment::Binary(Binary { base64 }) => base64.0,
        });
        Self::from_segments(segments).map_err(D::Error::custom)
    }
}

/// Bytes as base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(|_| D::Error::custom("the value is not base64"))
    }
}

/// One record in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListedRecord {
    /// The key's segments.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub key: Key,
    /// Its version, quotes included.
    pub etag: String,
    /// Milliseconds until it expires.
    pub ttl_ms: u64,
    /// Media type; `application/octet-stream` when none was given.
    pub content_type: String,
    /// The value, only with `values=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<Bytes>,
}

/// A page of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListAnswer {
    /// In key order.
    pub records: Vec<ListedRecord>,
    /// Where the next page begins; `null` at the end. A short page may have one.
    pub cursor: Option<String>,
}

/// Answer to a delete by match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedAnswer {
    /// How many records were deleted.
    pub deleted: u64,
}

/// What an operation of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BatchVerb {
    /// Store a value.
    Put,
    /// Store a value where none is.
    Create,
    /// Move the idle deadline.
    Touch,
    /// Delete.
    Delete,
    /// Read the state before the batch.
    Get,
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchOperation {
    /// What to do.
    pub op: BatchVerb,
    /// The key's segments.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub key: Key,
    /// The value of a put or create, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<Bytes>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Idle time to live of a put, create or touch, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Longest life of a put or create, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Whether a touch sets the deadline, even earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<bool>,
    /// Only when the record has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// `*`: only when there is no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// 1 to 1000 operations.
    pub ops: Vec<BatchOperation>,
}

/// How one operation of a batch ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// The status that the operation would have had alone; 424 when another operation stopped the batch.
    pub status: u16,
    /// The version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The value of a get, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<Bytes>,
    /// The media type of a get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Milliseconds until a record that was read expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Answer to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// One per operation, in order.
    pub results: Vec<BatchResult>,
}

/// An error as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// What kind of problem: a stable name, as a relative reference.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong with this request, and what to do. Never contains a key, value or token.
    pub detail: String,
    /// Results of a batch of which an operation failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<BatchResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_as_its_segments() {
        let key = Key::from_segments([b"user".as_slice(), b"\xff\x00"]).expect("a key");
        let json = serde_json::to_string(&key).expect("serializable");
        assert_eq!(json, r#"["user",{"base64":"/wA="}]"#);
        assert_eq!(serde_json::from_str::<Key>(&json).expect("as written"), key);
        let text: Key = serde_json::from_str(r#"["user","42"]"#).expect("a key");
        assert_eq!(text, Key::from_path("user/42").expect("a key"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        for json in [
            r#"[]"#,
            r#"["secret",""]"#,
            r#"["secret",7]"#,
            r#""secret""#,
            r#"[{"base64":"%"}]"#,
            r#"[{"base64":"YQ==","x":1}]"#,
        ] {
            let error = serde_json::from_str::<Key>(json).expect_err(json);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_batch_refuses_unknown_fields() {
        let good = r#"{"ops":[{"op":"put","key":["a"],"value":"AQ==","ttlMs":5}]}"#;
        let batch: BatchRequest = serde_json::from_str(good).expect("a batch");
        assert_eq!(batch.ops[0].value, Some(Bytes(vec![1])));
        assert!(
            serde_json::from_str::<BatchRequest>(r#"{"ops":[{"op":"put","key":["a"],"ttl":5}]}"#).is_err()
        );
    }
}
