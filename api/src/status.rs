//! `/v1/status`: a node, its members, tables, sources and file, as that node sees them.
//!
//! Fields may be added; what a reader does not know it leaves out, and a word that is new to it is `Unknown`.

use serde::{Deserialize, Serialize};

/// The answer of `/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StatusBody {
    /// The node itself.
    pub node: NodeBody,
    /// Name of the cluster.
    pub cluster: String,
    /// Node time, RFC 3339.
    pub time: String,
    /// The node itself and every member it knows.
    pub members: Vec<MemberBody>,
    /// Where peers are looked for.
    pub discovery: Vec<SourceBody>,
    /// The tables.
    pub tables: Vec<TableBody>,
    /// The file.
    pub storage: StorageBody,
    /// What all members announce beyond the protocol, and so is in use.
    #[serde(default)]
    pub features: Vec<String>,
    /// Client writes that wait for acknowledgement.
    #[serde(default)]
    pub writes_in_flight: usize,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeBody {
    /// Its identity, from its file.
    pub id: String,
    /// Label for people.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Time since the process started.
    pub uptime_ms: u64,
    /// What it is doing.
    pub state: NodeStateName,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum NodeStateName {
    /// It reads its file.
    Starting,
    /// It catches up.
    Joining,
    /// It serves.
    Ready,
    /// It stops.
    Draining,
    /// Its volume is full: it takes no writes.
    ReadOnly,
    /// A word of a newer version.
    #[serde(other)]
    Unknown,
}

/// A member, as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemberBody {
    /// Its identity.
    pub id: String,
    /// Label for people.
    pub name: String,
    /// How it says that it is reached.
    pub address: String,
    /// Where the node dialled and met it.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether it is in contact.
    pub state: MemberStateName,
    /// Writes that the node knows of and the member lacks.
    pub lag_writes: u64,
    /// How long ago the member held everything that the node held then; `null` when that is not known. Under writes that
    /// never pause a member always lacks the last few: this is how far it is behind.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// `null` when it was never heard of.
    pub last_contact_ms: Option<u64>,
    /// Its node time less the node's.
    pub skew_ms: i64,
    /// Whether its data was equal when last compared.
    pub digest: DigestName,
}

/// Whether a member is in contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum MemberStateName {
    /// The node itself.
    #[serde(rename = "self")]
    Myself,
    /// In contact, and catching up.
    Joining,
    /// In contact.
    Live,
    /// Not heard of for a while.
    Suspect,
    /// Gone.
    Down,
    /// A word of a newer version.
    #[serde(other)]
    Unknown,
}

/// Whether data was equal when last compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum DigestName {
    /// It was.
    Equal,
    /// It was not.
    Unequal,
    /// It was not compared yet; or a word of a newer version.
    #[serde(other)]
    Unknown,
}

/// A place where peers are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourceBody {
    /// The place.
    pub source: String,
    /// What it names.
    pub addresses: Vec<String>,
    /// What was wrong with its last answer.
    pub last_error: Option<String>,
    /// Milliseconds since it last named anybody; `null` when it has not since the start.
    pub age_ms: Option<u64>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TableBody {
    /// Name.
    pub name: String,
    /// `session` or `cache`.
    pub kind: String,
    /// Records that can be read.
    pub live: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StorageBody {
    /// Its size.
    pub file_bytes: u64,
    /// What a new file of the same records would need.
    pub live_bytes: u64,
    /// `fsync` or `commit`.
    pub durability: String,
    /// Version of the SQLite library.
    pub sqlite_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_documented_and_new_ones_are_unknown() {
        let words =
            |value: &str| serde_json::from_str::<NodeStateName>(&format!("{value:?}")).expect("a word");
        assert_eq!(words("readOnly"), NodeStateName::ReadOnly);
        assert_eq!(words("dreaming"), NodeStateName::Unknown);
        assert_eq!(serde_json::to_string(&MemberStateName::Myself).expect("a word"), r#""self""#);
        assert_eq!(serde_json::to_string(&DigestName::Unequal).expect("a word"), r#""unequal""#);
    }
}
