//! What clients and servers of Mneme share.
//!
//! Everything is parsed once, at the edge, into a type that cannot be wrong: [`Key`], [`Pattern`],
//! [`TableName`], [`TableConfig`], durations. With feature `client` a typed async client.

mod body;
#[cfg(feature = "client")]
pub mod client;
mod duration;
mod key;
mod pattern;
mod status;
mod table;

pub use body::{
    BatchAnswer, BatchOperation, BatchRequest, BatchResult, BatchVerb, Bytes, DeletedAnswer, ListAnswer,
    ListedRecord, Problem,
};
pub use duration::{DURATION_MS_MAX, DurationError, format_duration, parse_duration};
pub use key::{KEY_BYTES_MAX, KEY_SEGMENTS_MAX, Key, KeyError, SEGMENT_BYTES_MAX};
pub use pattern::{Pattern, PatternError};
pub use status::{
    DigestName, MemberBody, MemberStateName, NodeBody, NodeStateName, SourceBody, StatusBody, StorageBody,
    TableBody,
};
pub use table::{
    TableConfig, TableConfigError, TableKind, TableName, TableNameError, VALUE_BYTES_MAX, WhenFull,
};
