//! The one way to write to the cluster: only while this process leads, always as the same field manager, always JSON.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Resource;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::leader::Claim;

/// Field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "mneme-operator";

/// A write that takes longer is given up, though it may be made yet. With the time that a claim is short of the Lease, it is
/// over before another operator begins.
const WRITE_MAX: Duration = Duration::from_secs(4);

/// Why a write was not made, or not known to be made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// This process does not lead.
    #[error("this operator does not lead")]
    NotLeading,
    /// The API server.
    #[error("failed to {verb} {kind} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("failed to {verb} {kind} {name}: no answer in time")]
    Timeout {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// Writes, while this process leads.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    claim: Claim,
}

/// An object of a kind known at compile time, or not.
pub trait Object: Resource + Clone + Debug + Serialize + DeserializeOwned {}

impl<K: Resource + Clone + Debug + Serialize + DeserializeOwned> Object for K {}

impl Writer {
    /// A writer.
    pub fn new(client: Client, claim: Claim) -> Self {
        Self { client, claim }
    }

    /// Server-side apply: makes the object, or sets the fields that are given and takes back those that were.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub async fn apply<K>(&self, api: &Api<K>, kind: &str, object: &K) -> Result<K, WriteError>
    where
        K: Object,
    {
        self.check()?;
        let name = object.name_any();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        within("apply", kind, &name, api.patch(&name, &params, &Patch::Apply(object))).await
    }

    /// Makes an object unless it is there; says whether it was made. Reads nothing.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub async fn create<K>(&self, api: &Api<K>, kind: &str, object: &K) -> Result<bool, WriteError>
    where
        K: Object,
    {
        self.check()?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match within("create", kind, &object.name_any(), api.create(&params, object)).await {
            Ok(_) => Ok(true),
            Err(WriteError::Api { source: kube::Error::Api(status), .. }) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets the given fields and leaves the others.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub async fn merge<K>(
        &self,
        api: &Api<K>,
        kind: &str,
        name: &str,
        patch: &Value,
    ) -> Result<(), WriteError>
    where
        K: Object,
    {
        self.check()?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        within("patch", kind, name, api.patch(name, &params, &Patch::Merge(patch))).await.map(|_| ())
    }

    /// Applies the status, whole.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub async fn apply_status<K>(
        &self,
        api: &Api<K>,
        kind: &str,
        name: &str,
        body: &Value,
    ) -> Result<(), WriteError>
    where
        K: Object,
    {
        self.check()?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(body);
        let applied = api.patch_status(name, &params, &patch);
        within("apply the status of", kind, name, applied).await.map(|_| ())
    }

    /// Deletes this very object, if it is still there.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub async fn delete<K>(&self, api: &Api<K>, kind: &str, object: &K) -> Result<(), WriteError>
    where
        K: Object,
    {
        self.check()?;
        let name = object.name_any();
        let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match within("delete", kind, &name, api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            // Gone, or another by that name: nothing is left to do.
            Err(WriteError::Api { source: kube::Error::Api(status), .. })
                if matches!(status.code, 404 | 409) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// An API of a namespace, for reading, and to hand back for writing.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The client, for kinds that are not known at compile time.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.claim.is_held() { Ok(()) } else { Err(WriteError::NotLeading) }
    }
}

async fn within<T>(
    verb: &'static str,
    kind: &str,
    name: &str,
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    match tokio::time::timeout(WRITE_MAX, write).await {
        Ok(result) => result.map_err(|source| WriteError::Api { verb, kind, name, source }),
        Err(_) => Err(WriteError::Timeout { verb, kind, name }),
    }
}
