//! Secrets: made once, never read. Their contents are random, so that this is the one builder with chance in it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Secret;

use super::metadata;
use super::names::{SECRET_KEY, TOKEN_KEY, TOKENS_KEY};
use crate::reconcile::validate::Valid;

/// Name of the client whose token is generated.
const CLIENT: &str = "default";

/// Builds the Secrets that the user did not name.
pub fn build(valid: &Valid) -> Vec<Secret> {
    let secret = |name: String, data: BTreeMap<String, String>| Secret {
        metadata: metadata(valid, name),
        type_: Some("Opaque".to_owned()),
        string_data: Some(data),
        ..Secret::default()
    };
    let tokens = (valid.needs_tokens && valid.tokens_secret.is_none()).then(|| {
        let token = random();
        let data = [
            (TOKENS_KEY.to_owned(), format!("{CLIENT}:{token}\n")),
            // For an application that takes the token from its environment.
            (TOKEN_KEY.to_owned(), token),
        ];
        secret(valid.names.tokens(), data.into())
    });
    let cluster = valid
        .cluster_secret
        .is_none()
        .then(|| secret(valid.names.cluster(), [(SECRET_KEY.to_owned(), format!("{}\n", random()))].into()));
    tokens.into_iter().chain(cluster).collect()
}

/// 256 bits of chance.
fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
