//! Writes what was built, in the order in which pods need it, and nothing that is so already.

pub mod cover;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::core::Resource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use self::cover::covers;
use super::build::names::{APPLIED_HASH, PEERS_HASH, PEERS_KEY};
use super::build::{Resources, hash};
use super::fetch::{Children, Observed, pod_monitor_kind};
use super::quantity::billionths;
use super::validate::Valid;
use super::{Context, Error};
use crate::requeue::Class;
use crate::writer::{Object, WriteError};

/// What was done to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub verb: Verb,
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What can be done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// It was made.
    Created,
    /// It was changed, because what was built has.
    Updated,
    /// It was changed back.
    Restored,
    /// It was deleted: nothing builds it any more.
    Deleted,
    /// A claim was asked to grow.
    Expanded,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// What was done.
    pub changes: Vec<Change>,
    /// Claims that could not be asked to grow, and why.
    pub claim_errors: Vec<String>,
}

/// Objects that have a name of ours and are not ours.
pub fn conflicts(valid: &Valid, observed: &Observed, resources: &Resources) -> Vec<String> {
    // No `..`: an object that is added must be checked here.
    let Resources {
        service_account,
        // Not read, so not checked: making one that is there is refused, and it is used as it is.
        secrets: _,
        peer_service,
        client_service,
        config_map,
        disruption_budget,
        network_policy,
        pod_monitor,
        stateful_set,
    } = resources;
    let mut conflicts = Vec::new();
    let owner = &valid.owner;
    conflict(owner, &observed.service_accounts, Some(service_account), &mut conflicts);
    conflict(owner, &observed.services, Some(peer_service), &mut conflicts);
    conflict(owner, &observed.services, Some(client_service), &mut conflicts);
    conflict(owner, &observed.config_maps, Some(config_map), &mut conflicts);
    conflict(owner, &observed.disruption_budgets, disruption_budget.as_ref(), &mut conflicts);
    conflict(owner, &observed.network_policies, network_policy.as_ref(), &mut conflicts);
    if let Some(monitors) = &observed.pod_monitors {
        let names = pod_monitor.iter().map(ResourceExt::name_any);
        conflicts.extend(names.filter_map(|name| foreign(owner, "PodMonitor", monitors.named(&name)?)));
    }
    let set = observed.stateful_sets.named(&stateful_set.name_any());
    conflicts.extend(set.and_then(|set| foreign(owner, "StatefulSet", set)));
    conflicts
}

fn conflict<K>(owner: &OwnerReference, live: &Children<K>, built: Option<&K>, conflicts: &mut Vec<String>)
where
    K: Object + Resource<DynamicType = ()>,
{
    let live = built.and_then(|built| live.named(&built.name_any()));
    conflicts.extend(live.and_then(|live| foreign(owner, &K::kind(&()), live)));
}

/// What is wrong with an object that has our name, for people; `None` when it is ours.
fn foreign<K: Object>(owner: &OwnerReference, kind: &str, object: &K) -> Option<String> {
    let name = object.name_any();
    let controller = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    match controller {
        Some(controller) if controller.uid == owner.uid => None,
        Some(controller) => Some(format!("{kind} {name} belongs to {} {}", controller.kind, controller.name)),
        None => Some(format!("{kind} {name} was made by somebody else")),
    }
}

/// Applies everything.
///
/// # Errors
///
/// The first [`Error`]: what comes after needs what comes before. The next time goes on from there.
pub async fn apply(
    context: &Context,
    valid: &Valid,
    observed: &Observed,
    resources: &Resources,
) -> Result<Applied, Error> {
    let mut pass = Pass { context, valid, applied: Applied::default(), refused: None };
    // No `..`: an object that is added must be applied here.
    let Resources {
        service_account,
        secrets,
        peer_service,
        client_service,
        config_map,
        disruption_budget,
        network_policy,
        pod_monitor,
        stateful_set,
    } = resources;
    pass.one(&observed.service_accounts, service_account).await?;
    pass.secrets(observed, secrets).await?;
    pass.one(&observed.services, peer_service).await?;
    pass.one(&observed.services, client_service).await?;
    pass.one(&observed.config_maps, config_map).await?;
    if let Some(budget) = disruption_budget {
        pass.one(&observed.disruption_budgets, budget).await?;
    }
    if let Some(policy) = network_policy {
        pass.one(&observed.network_policies, policy).await?;
    }
    let monitor_kind = pod_monitor_kind();
    let monitors =
        Api::<DynamicObject>::namespaced_with(context.writer.client(), &valid.names.namespace, &monitor_kind);
    if let (Some(live), Some(monitor)) = (&observed.pod_monitors, pod_monitor) {
        let live = live.named(&monitor.name_any());
        pass.apply(&monitors, "PodMonitor", live, monitor).await?;
    }
    if let Some(refused) = pass.refused.take() {
        return Err(refused);
    }
    pass.stateful_set(observed, stateful_set).await?;
    if let Some(refused) = pass.refused.take() {
        return Err(refused);
    }
    pass.claims(observed).await?;
    pass.refresh_pods(observed, config_map.data.iter().flatten().find(|(key, _)| *key == PEERS_KEY)).await?;

    // What an older version built, or an older generation asked for. The StatefulSet has one name for ever, and claims
    // and Secrets are never deleted.
    pass.orphans(&observed.services, &[peer_service.name_any(), client_service.name_any()]).await?;
    pass.orphans(&observed.config_maps, &[config_map.name_any()]).await?;
    pass.orphans(&observed.service_accounts, &[service_account.name_any()]).await?;
    pass.orphans(&observed.disruption_budgets, &name_of(disruption_budget.as_ref())).await?;
    pass.orphans(&observed.network_policies, &name_of(network_policy.as_ref())).await?;
    if let Some(live) = &observed.pod_monitors {
        pass.delete_orphans(&monitors, "PodMonitor", live, &name_of(pod_monitor.as_ref())).await?;
    }
    Ok(pass.applied)
}

fn name_of<K: ResourceExt>(object: Option<&K>) -> Vec<String> {
    object.iter().map(|object| object.name_any()).collect()
}

struct Pass<'a> {
    context: &'a Context,
    valid: &'a Valid,
    applied: Applied,
    /// The first object that the API server refuses: the others are written all the same, for they need not suffer by it;
    /// the StatefulSet, which needs them all, is not.
    refused: Option<Error>,
}

impl Pass<'_> {
    fn note(&mut self, verb: Verb, kind: &str, name: &str) {
        tracing::info!(
            cache.namespace = %self.valid.names.namespace,
            cache.name = %self.valid.names.name,
            object.kind = kind,
            object.name = name,
            verb = ?verb,
            "wrote an object"
        );
        self.applied.changes.push(Change { verb, kind: kind.to_owned(), name: name.to_owned() });
    }

    async fn one<K>(&mut self, live: &Children<K>, built: &K) -> Result<(), Error>
    where
        K: Object + Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let kind = K::kind(&()).into_owned();
        let api = self.context.api::<K>(&self.valid.names.namespace);
        self.apply(&api, &kind, live.named(&built.name_any()), built).await
    }

    async fn stateful_set(&mut self, observed: &Observed, built: &DynamicObject) -> Result<(), Error> {
        let kind = kube::api::ApiResource::erase::<StatefulSet>(&());
        let client = self.context.writer.client();
        let api = Api::<DynamicObject>::namespaced_with(client, &self.valid.names.namespace, &kind);
        let live = observed.stateful_sets.named(&built.name_any());
        self.apply(&api, "StatefulSet", live, built).await
    }

    async fn apply<K: Object, L: Object>(
        &mut self,
        api: &Api<K>,
        kind: &str,
        live: Option<&L>,
        built: &K,
    ) -> Result<(), Error> {
        let mut built = built.clone();
        let applied_hash = hash(&built);
        built.annotations_mut().insert(APPLIED_HASH.to_owned(), applied_hash.clone());
        let is_same_as_applied =
            live.is_some_and(|live| live.annotations().get(APPLIED_HASH) == Some(&applied_hash));
        if is_same_as_applied && live.is_some_and(|live| covers(&json_of(live), &json_of(&built))) {
            return Ok(());
        }
        let written = match self.write(api, kind, live.is_some(), &built).await.map_err(Error::from) {
            Ok(written) => written,
            Err(error) if matches!(error.class(), Class::Invalid | Class::Forbidden) => {
                self.refused.get_or_insert(error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let verb = match live {
            None => Verb::Created,
            // The API server may have nothing to do where two ways to write a value mean the same.
            Some(live) if live.resource_version() == written.resource_version() => return Ok(()),
            Some(_) if is_same_as_applied => Verb::Restored,
            Some(_) => Verb::Updated,
        };
        self.note(verb, kind, &built.name_any());
        Ok(())
    }

    /// Applies an object. Where others changed an element of a list that is told by the changed field (the port of a
    /// Service), theirs would stay beside ours, and the API server may refuse the two: then our lists replace theirs first.
    async fn write<K: Object>(
        &self,
        api: &Api<K>,
        kind: &str,
        is_live: bool,
        built: &K,
    ) -> Result<K, WriteError> {
        match self.context.writer.apply(api, kind, built).await {
            Err(error) if is_live && Class::of_write(&error) == Class::Invalid => {
                self.context
                    .writer
                    .merge(api, kind, &built.name_any(), &json_of(built))
                    .await
                    .map_err(|_| error)?;
                self.context.writer.apply(api, kind, built).await
            }
            result => result,
        }
    }

    /// Makes the Secrets where they are missing. Whether they are is only known by trying, so it is tried seldom.
    async fn secrets(&mut self, observed: &Observed, secrets: &[Secret]) -> Result<(), Error> {
        let is_waiting = observed.pods.iter().any(|pod| !super::plan::is_ready(pod));
        if secrets.is_empty() || !self.context.secrets.is_due(&self.valid.owner.uid, is_waiting) {
            return Ok(());
        }
        let api = self.context.api::<Secret>(&self.valid.names.namespace);
        for secret in secrets {
            if self.context.writer.create(&api, "Secret", secret).await? {
                self.note(Verb::Created, "Secret", &secret.name_any());
            }
        }
        self.context.secrets.done(&self.valid.owner.uid);
        Ok(())
    }

    /// Asks claims to grow that are smaller than the resource says.
    async fn claims(&mut self, observed: &Observed) -> Result<(), Error> {
        let api = self.context.api::<PersistentVolumeClaim>(&self.valid.names.namespace);
        let wanted = &self.valid.storage.size;
        for claim in &observed.claims {
            let name = claim.name_any();
            let requested = super::status::requested(claim);
            // A claim that has no volume yet cannot be changed; it grows when it has one.
            let is_bound =
                claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
            let is_smaller = billionths(&requested) < billionths(wanted);
            if !is_bound || !is_smaller || claim.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let patch = json!({ "spec": { "resources": { "requests": { "storage": wanted } } } });
            match self.context.writer.merge(&api, "PersistentVolumeClaim", &name, &patch).await {
                Ok(()) => self.note(Verb::Expanded, "PersistentVolumeClaim", &name),
                Err(WriteError::Api { source: kube::Error::Api(status), .. })
                    if matches!(status.code, 403 | 422) =>
                {
                    self.applied.claim_errors.push(format!("{name}: {}", status.message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tells kubelets of a new peer list: they look after a pod's volumes at once when the pod changes.
    async fn refresh_pods(
        &mut self,
        observed: &Observed,
        peers: Option<(&String, &String)>,
    ) -> Result<(), Error> {
        let Some((_, peers)) = peers else { return Ok(()) };
        let peers_hash = hash(peers);
        let api = self.context.api::<Pod>(&self.valid.names.namespace);
        for pod in &observed.pods {
            if pod.annotations().get(PEERS_HASH) == Some(&peers_hash)
                || pod.metadata.deletion_timestamp.is_some()
            {
                continue;
            }
            let patch = json!({ "metadata": { "annotations": { PEERS_HASH: peers_hash } } });
            match self.context.writer.merge(&api, "Pod", &pod.name_any(), &patch).await {
                Ok(()) => {}
                // It went meanwhile, and its successor starts with the new list.
                Err(WriteError::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn orphans<K>(&mut self, live: &Children<K>, kept: &[String]) -> Result<(), Error>
    where
        K: Object + Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let api = self.context.api::<K>(&self.valid.names.namespace);
        self.delete_orphans(&api, &K::kind(&()), live, kept).await
    }

    async fn delete_orphans<K: Object>(
        &mut self,
        api: &Api<K>,
        kind: &str,
        live: &Children<K>,
        kept: &[String],
    ) -> Result<(), Error> {
        for object in &live.owned {
            let name = object.name_any();
            let is_ours = foreign(&self.valid.owner, kind, object).is_none();
            if is_ours && !kept.contains(&name) && object.meta().deletion_timestamp.is_none() {
                self.context.writer.delete(api, kind, object).await?;
                self.note(Verb::Deleted, kind, &name);
            }
        }
        Ok(())
    }
}

fn json_of<K: Object>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
