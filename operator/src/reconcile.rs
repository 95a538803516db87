//! One pass over one SessionCache: fetch, validate, plan, build, apply, status. It is told which, never why.

pub mod apply;
pub mod build;
pub mod fetch;
pub mod plan;
pub mod quantity;
pub mod status;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::core::Resource;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use self::apply::Applied;
use self::build::Template;
use self::fetch::Observed;
use self::plan::{Plan, Rollout, Scaling};
use self::status::{Picture, Problem};
use self::validate::{Valid, validate};
use crate::config::Defaults;
use crate::controller::events::{Events, Happening};
use crate::crd::v1alpha1::{SessionCache, SessionCacheStatus};
use crate::metrics::Metrics;
use crate::nodes::Ask;
use crate::peers::Resolver;
use crate::requeue::{Class, PROGRESSING, STEADY, jitter};
use crate::telemetry::chain;
use crate::writer::{WriteError, Writer};

/// Pause while an object of somebody else is in the way.
const CONFLICT_PAUSE: Duration = Duration::from_secs(10);

/// A pass that takes longer is given up: the API server does not answer. What is half done is gone on with.
const PASS_MAX: Duration = Duration::from_secs(30);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("failed to read objects of kind {kind}")]
    Read {
        /// What.
        kind: String,
        /// Why not.
        #[source]
        source: kube::Error,
    },
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It took too long.
    #[error("the API server does not answer in time")]
    Timeout,
}

impl Error {
    /// What kind of error it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Read { source, .. } => Class::of(source),
            Self::Write(error) => Class::of_write(error),
            Self::Timeout => Class::Transient,
        }
    }
}

/// What passes share.
pub struct Context {
    /// The one way to write.
    pub writer: Writer,
    /// What sets are built with where their spec is silent.
    pub defaults: Defaults,
    /// How nodes are asked.
    pub ask: Arc<dyn Ask>,
    /// How names of peers are resolved.
    pub resolver: Resolver,
    /// Secrets that were made.
    pub secrets: SecretMemory,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// An API of a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        self.writer.api(namespace)
    }

    /// A set is gone.
    pub fn forget(&self, set: &str) {
        self.resolver.forget(set);
        self.metrics.forget(set);
    }
}

/// When Secrets were last tried to be made, by the owner's uid. They are not readable, so nothing else tells.
#[derive(Debug, Default)]
pub struct SecretMemory {
    tried: Mutex<HashMap<String, Instant>>,
}

impl SecretMemory {
    /// Pause between trials while all pods are ready: then they have their Secrets.
    const PAUSE: Duration = Duration::from_secs(600);
    /// Pause while some pod is not ready: it may be waiting for a Secret that somebody deleted.
    const PAUSE_WAITING: Duration = Duration::from_secs(30);

    /// Whether to try now.
    pub fn is_due(&self, uid: &str, is_waiting: bool) -> bool {
        let pause = if is_waiting { Self::PAUSE_WAITING } else { Self::PAUSE };
        self.tried.lock().get(uid).is_none_or(|tried| tried.elapsed() >= pause)
    }

    /// It was tried.
    pub fn done(&self, uid: &str) {
        let mut tried = self.tried.lock();
        tried.retain(|_, tried| tried.elapsed() < Self::PAUSE * 2);
        tried.insert(uid.to_owned(), Instant::now());
    }
}

/// What a pass came to.
#[derive(Default)]
struct Pass {
    valid: Option<Valid>,
    observed: Option<Observed>,
    template: Option<Template>,
    plan: Option<Plan>,
    applied: Applied,
    problem: Option<Problem>,
    error: Option<Error>,
}

/// Reconciles one SessionCache.
///
/// # Errors
///
/// What could not be read or written, after it was put into the status, as far as that could be written.
pub async fn reconcile(context: &Context, cache: &SessionCache) -> Result<Action, Error> {
    if cache.metadata.deletion_timestamp.is_some() {
        // The garbage collector takes what belongs to it; nothing else is left to do.
        return Ok(Action::await_change());
    }
    let mut pass = Pass::default();
    let ran = tokio::time::timeout(PASS_MAX, run(context, cache, &mut pass)).await;
    if let Err(error) = ran.unwrap_or(Err(Error::Timeout)) {
        if matches!(error.class(), Class::NotLeading) {
            return Err(error);
        }
        pass.problem = Some(Problem::Failed(chain(&error)));
        pass.error = Some(error);
    }
    let written = report(context, cache, &pass).await;
    if let Some(error) = pass.error {
        return Err(error);
    }
    let status = written?;
    Ok(next(&pass, &status))
}

/// Everything but the status.
async fn run(context: &Context, cache: &SessionCache, pass: &mut Pass) -> Result<(), Error> {
    let valid = match validate(cache, &context.defaults.cluster_domain) {
        Ok(valid) => valid,
        Err(errors) => {
            pass.problem = Some(Problem::Invalid(errors));
            return Ok(());
        }
    };
    let valid = pass.valid.insert(valid);
    let observed = pass.observed.insert(fetch::fetch(context, valid).await?);
    let template = match build::template(valid, observed, &context.defaults) {
        Ok(template) => template,
        Err(error) => {
            pass.problem = Some(Problem::Invalid(vec![error.to_string()]));
            return Ok(());
        }
    };
    let template = pass.template.insert(template);
    let plan = pass.plan.insert(plan::plan(valid, observed, &template.hash, Timestamp::now()));
    let resources = build::build(valid, observed, template, plan);
    let conflicts = apply::conflicts(valid, observed, &resources);
    if !conflicts.is_empty() {
        pass.problem = Some(Problem::Conflict(conflicts));
        return Ok(());
    }
    if valid.is_paused {
        return Ok(());
    }
    let before = observed.stateful_set(&valid.names).cloned();
    pass.applied = apply::apply(context, valid, observed, &resources).await?;
    for change in &pass.applied.changes {
        context.metrics.wrote(change);
        context.events.publish(cache, &Happening::Wrote(change.clone())).await;
    }
    let partition = |set: &k8s_openapi::api::apps::v1::StatefulSet| {
        set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?.partition
    };
    if let (Rollout::Replacing { pod, .. }, Some(before)) = (&plan.rollout, before)
        && partition(&before).is_some_and(|partition| partition > plan.partition)
    {
        context.events.publish(cache, &Happening::Replacing { pod: pod.clone() }).await;
    }
    if let Scaling::Down { pod } = &plan.scaling
        && pass.applied.changes.iter().any(|change| change.kind == "StatefulSet")
    {
        context.events.publish(cache, &Happening::Leaving { pod: pod.clone() }).await;
    }
    Ok(())
}

/// Writes the status where it changed, and tells of what changed in it.
async fn report(context: &Context, cache: &SessionCache, pass: &Pass) -> Result<SessionCacheStatus, Error> {
    let set = pass.observed.as_ref().zip(pass.valid.as_ref());
    let is_template_current = set.is_some_and(|(observed, valid)| {
        let annotations =
            observed.stateful_set(&valid.names).and_then(|set| set.metadata.annotations.as_ref());
        let hash = annotations.and_then(|all| all.get(build::names::TEMPLATE_HASH));
        hash.is_some() && hash == pass.template.as_ref().map(|template| &template.hash)
    });
    let status = status::status(&Picture {
        cache,
        valid: pass.valid.as_ref(),
        observed: pass.observed.as_ref(),
        plan: pass.plan.as_ref(),
        is_template_current,
        problem: pass.problem.as_ref(),
        claim_errors: &pass.applied.claim_errors,
        now: Timestamp::now(),
    });
    context.metrics.reported(&key(cache), &status);
    if cache.status.as_ref() == Some(&status) {
        return Ok(status);
    }
    let api = context.api::<SessionCache>(&cache.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": SessionCache::api_version(&()),
        "kind": SessionCache::kind(&()),
        "metadata": { "name": cache.name_any() },
        "status": status,
    });
    context.writer.apply_status(&api, "SessionCache", &cache.name_any(), &body).await?;
    for happening in Happening::of_conditions(cache.status.as_ref(), &status) {
        context.events.publish(cache, &happening).await;
    }
    Ok(status)
}

/// When to look again.
fn next(pass: &Pass, status: &SessionCacheStatus) -> Action {
    match &pass.problem {
        Some(Problem::Invalid(_)) => return Action::await_change(),
        Some(Problem::Conflict(_)) => return Action::requeue(jitter(CONFLICT_PAUSE)),
        Some(Problem::Failed(_)) | None => {}
    }
    let is = |type_: &str, wanted: &str| {
        status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == wanted)
    };
    // Objects and pods are watched. What nodes say of themselves is not, and more is to be done as soon as they say it.
    let is_waiting_for_nodes = pass.plan.as_ref().is_some_and(|plan| {
        matches!(plan.rollout, Rollout::Announced | Rollout::Waiting { .. } | Rollout::Replacing { .. })
            || matches!(plan.scaling, Scaling::Down { .. } | Scaling::Blocked { .. })
    });
    let pods = pass.observed.as_ref().map_or(&[][..], |observed| &observed.pods[..]);
    let is_about_to_be_ready = !is("Ready", "True") && !pods.is_empty() && pods.iter().all(plan::is_ready);
    let pause = if is_waiting_for_nodes || is_about_to_be_ready { PROGRESSING } else { STEADY };
    Action::requeue(jitter(pause))
}

/// Name of a set in memory.
pub fn key<K: ResourceExt>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
