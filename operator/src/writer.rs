//! The one way to write to the cluster: only while this process leads, always as the same field manager, always JSON.

use std::fmt::Debug;

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
        let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
        applied.map_err(|source| failed("apply", kind, &name, source))
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
        match api.create(&params, object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(source) => Err(failed("create", kind, &object.name_any(), source)),
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
        let patched = api.patch(name, &params, &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(|source| failed("patch", kind, name, source))
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
        let applied = api.patch_status(name, &params, &Patch::Apply(body)).await;
        applied.map(|_| ()).map_err(|source| failed("apply the status of", kind, name, source))
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
        match api.delete(&name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another by that name: nothing is left to do.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(failed("delete", kind, &name, source)),
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

fn failed(verb: &'static str, kind: &str, name: &str, source: kube::Error) -> WriteError {
    WriteError::Api { verb, kind: kind.to_owned(), name: name.to_owned(), source }
}
