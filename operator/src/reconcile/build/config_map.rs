//! The ConfigMap that the pods mount: the tables, and the peers.

use k8s_openapi::api::core::v1::ConfigMap;
use mneme_api::TableConfig;

use super::metadata;
use super::names::{CONFIG_KEY, PEERS_KEY};
use crate::peers::{Found, write_list};
use crate::reconcile::validate::Valid;

/// Builds it. `replicas` nodes are there, or will be.
pub fn build(valid: &Valid, found: &[Found], replicas: i32) -> ConfigMap {
    let data = [
        (CONFIG_KEY.to_owned(), config(&valid.tables)),
        (PEERS_KEY.to_owned(), peers(valid, found, replicas)),
    ];
    ConfigMap {
        metadata: metadata(valid, valid.names.config()),
        data: Some(data.into()),
        ..ConfigMap::default()
    }
}

/// The configuration file of a node. Tables stand as JSON, which is YAML: no name is taken for a number or for no.
pub fn config(tables: &[TableConfig]) -> String {
    let mut text = "# Written by mneme-operator; changes here are put back.\ntables:\n".to_owned();
    for table in tables {
        // A table is made of texts and numbers.
        let json = serde_json::to_string(table).expect("a table can be written as JSON");
        text.push_str(&format!("- {json}\n"));
    }
    text
}

/// The file of peers.
pub fn peers(valid: &Valid, found: &[Found], replicas: i32) -> String {
    let names = &valid.names;
    let own: Vec<String> = (0..replicas).map(|ordinal| names.address(&names.pod(ordinal))).collect();
    write_list(&own, found)
}
