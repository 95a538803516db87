//! Watches SessionCaches and what belongs to them, and has each looked at when something changed.

pub mod events;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use self::events::Happening;
use crate::crd::v1alpha1::SessionCache;
use crate::metrics::Outcome;
use crate::reconcile::build::names::MANAGED_BY;
use crate::reconcile::{self, Context};
use crate::requeue::{Class, Failures};
use crate::telemetry::chain;

/// A SessionCache, or one that cannot be read: one such never stops the others.
pub type Guarded = DeserializeGuard<SessionCache>;

/// Sets that are looked at at once.
const CONCURRENCY: u16 = 8;
/// Changes within this time are one: a set that is made has a dozen.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// What a pass needs besides the shared context.
struct State {
    context: Arc<Context>,
    failures: Failures,
}

/// Why an object was not reconciled.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the resource: {0}")]
    Undecodable(String),
    #[error(transparent)]
    Reconcile(#[from] reconcile::Error),
}

/// A controller of one namespace, or of all.
pub struct Scope {
    controller: Controller<Guarded>,
    namespace: Option<String>,
}

impl Scope {
    /// Sets the watches up; they begin with [`Scope::run`].
    pub fn new(client: &Client, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        let owned = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
        let controller =
            Controller::new(api::<Guarded>(client, namespace.as_deref()), watcher::Config::default())
                .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
                .owns(api::<StatefulSet>(client, namespace.as_deref()), owned.clone())
                .owns(api::<Service>(client, namespace.as_deref()), owned.clone())
                .owns(api::<ConfigMap>(client, namespace.as_deref()), owned.clone())
                .owns(api::<ServiceAccount>(client, namespace.as_deref()), owned.clone())
                .owns(api::<PodDisruptionBudget>(client, namespace.as_deref()), owned.clone())
                .owns(api::<NetworkPolicy>(client, namespace.as_deref()), owned.clone())
                .watches(api::<Pod>(client, namespace.as_deref()), owned, |pod| set_of(&pod));
        Self { controller, namespace }
    }

    /// What the watch has seen.
    pub fn store(&self) -> Store<Guarded> {
        self.controller.store()
    }

    /// The namespace, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Reconciles until `stop`; passes that are under way come to their end.
    pub async fn run(self, context: Arc<Context>, stop: CancellationToken) {
        let state = Arc::new(State { context, failures: Failures::default() });
        let seen = state.clone();
        self.controller
            .graceful_shutdown_on(stop.cancelled_owned())
            .run(run, on_error, state)
            .for_each(move |result| {
                let state = seen.clone();
                async move { state.look_at(result) }
            })
            .await;
    }
}

/// An API of one namespace, or of all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The set of a pod: pods belong to the StatefulSet, so their labels name it.
fn set_of(pod: &Pod) -> Option<ObjectRef<Guarded>> {
    let name = pod.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

async fn run(guarded: Arc<Guarded>, state: Arc<State>) -> Result<Action, Error> {
    let cache = guarded.0.as_ref().map_err(|invalid| Error::Undecodable(invalid.error.clone()))?;
    let key = reconcile::key(cache);
    let timer = state.context.metrics.begin();
    let result = reconcile::reconcile(&state.context, cache).await;
    let outcome = result.as_ref().map_or_else(|error| Outcome::Failed(error.class()), |_| Outcome::Done);
    state.context.metrics.end(timer, outcome);
    let action = result?;
    state.failures.forget(&key);
    Ok(action)
}

fn on_error(guarded: Arc<Guarded>, error: &Error, state: Arc<State>) -> Action {
    let key = reconcile::key(&*guarded);
    match error {
        Error::Undecodable(_) => {
            state.context.metrics.undecodable();
            tracing::error!(cache.key = %key, error = %chain(error), "the resource is left alone until it changes");
            let context = state.context.clone();
            let reference = events::reference(&*guarded);
            let happening = Happening::Undecodable { error: error.to_string() };
            // This is no async function; the event's own deadline ends the task.
            tokio::spawn(async move { context.events.publish_for(&reference, &happening).await });
            Action::await_change()
        }
        Error::Reconcile(reconcile) => {
            let class = reconcile.class();
            if class == Class::Conflict {
                tracing::debug!(cache.key = %key, error = %chain(error), "somebody else wrote meanwhile");
            } else {
                tracing::warn!(cache.key = %key, error = %chain(error), class = ?class, "failed to reconcile");
            }
            state.failures.after(&key, class)
        }
    }
}

impl State {
    fn look_at(
        &self,
        result: Result<(ObjectRef<Guarded>, Action), controller::Error<Error, watcher::Error>>,
    ) {
        match result {
            // Failures of passes are handled where they are requeued.
            Ok(_) | Err(controller::Error::ReconcilerFailed(..)) => {}
            Err(controller::Error::ObjectNotFound(object)) => {
                let key = format!("{}/{}", object.namespace.unwrap_or_default(), object.name);
                self.failures.forget(&key);
                self.context.forget(&key);
            }
            Err(controller::Error::QueueError(error)) => {
                self.context.metrics.watch_failed();
                tracing::warn!(error = %chain(&error), "failed to watch; it is tried again");
            }
            Err(error) => tracing::warn!(error = %chain(&error), "the controller reports"),
        }
    }
}
