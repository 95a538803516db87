//! The account of the pods: it exists so that no pod runs under the namespace's default account, and it has no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::reconcile::validate::Valid;

/// Builds it.
pub fn build(valid: &Valid) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(valid, valid.names.set()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
