//! What is reported: read from the nodes' own status, unknown said as unknown.

#![expect(unreachable_pub, reason = "the derived schema repeats the types within functions")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw, of the generation it names.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCacheStatus {
    /// The generation of the resource that this status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: as many members as asked for are ready and caught up. Progressing: a change is under way, or what holds it
    /// up. Degraded: something needs a look, though sessions may well be served. PeersResolved: the peers outside the set
    /// were found. Each names the generation it is of, a reason, and in its message what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// The nodes of this set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_owned()]))]
    pub members: Vec<Member>,
    /// Peers outside this set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["address".to_owned()]))]
    pub peers: Vec<Peer>,
    /// Number of pods.
    #[serde(default)]
    pub replicas: i32,
    /// Number of members that are ready and caught up.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Selects the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Version that all members run; the versions, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Acknowledged writes that the member furthest behind lacks, as far as the others know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_writes: Option<i64>,
    /// Ready members of those asked for, as 3/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_summary: Option<String>,
    /// Reached peers of those found, as 2/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_summary: Option<String>,
}

/// A node of the set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the pod.
    pub name: String,
    /// How peers reach it.
    pub address: String,
    /// Its identity, from its file. Absent when the node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether it is ready for traffic and caught up.
    pub ready: bool,
    /// Version that it runs. Absent when the node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Acknowledged writes that it lacks, as far as the other members know. Absent when nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_writes: Option<i64>,
    /// Whether its data was equal to the others' when last compared: equal, unequal or unknown.
    pub digest: String,
    /// By how much its clock is ahead of the others', in milliseconds; reported from 250 ms, in steps of 50 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<i64>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A peer outside the set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Where it is dialled.
    pub address: String,
    /// What named it: host NAME, service NAME.NAMESPACE, or member for one that other members told of.
    pub source: String,
    /// Whether a node of the set is in contact with it. Absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
