//! Reads what there is: the set's objects, its pods, what its nodes say, and where its peers are.
//!
//! Read from the API server each time, not from a cache: what is decided from it stops and starts nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::core::Resource;
use kube::{Api, ResourceExt};

use super::build::names::{Names, PEERS_KEY};
use super::validate::Valid;
use super::{Context, Error};
use crate::nodes::{self, NodeAnswer};
use crate::peers::{self, Found};
use crate::writer::Object;

/// What there is of a kind: ours by label, and whoever else has one of our names.
#[derive(Clone, Debug)]
pub struct Children<K> {
    /// Objects with the labels of the set.
    pub owned: Vec<K>,
    /// An object that has the name of one of ours and not its labels.
    pub foreign: Vec<K>,
}

impl<K> Default for Children<K> {
    fn default() -> Self {
        Self { owned: Vec::new(), foreign: Vec::new() }
    }
}

impl<K: Resource> Children<K> {
    /// The object by a name, whoever's it is.
    pub fn named(&self, name: &str) -> Option<&K> {
        self.owned.iter().chain(&self.foreign).find(|object| object.meta().name.as_deref() == Some(name))
    }
}

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The set.
    pub stateful_sets: Children<StatefulSet>,
    /// Both Services.
    pub services: Children<Service>,
    /// Tables and peers.
    pub config_maps: Children<ConfigMap>,
    /// The account of the pods.
    pub service_accounts: Children<ServiceAccount>,
    /// The budget.
    pub disruption_budgets: Children<PodDisruptionBudget>,
    /// The policy.
    pub network_policies: Children<NetworkPolicy>,
    /// The monitor; `None` where the cluster does not know the kind.
    pub pod_monitors: Option<Children<DynamicObject>>,
    /// The pods of the set.
    pub pods: Vec<Pod>,
    /// The volume claims of the set.
    pub claims: Vec<PersistentVolumeClaim>,
    /// What each running pod's node says.
    pub nodes: BTreeMap<String, NodeAnswer>,
    /// Peers outside.
    pub found: Vec<Found>,
}

impl Observed {
    /// The StatefulSet of the set.
    pub fn stateful_set(&self, names: &Names) -> Option<&StatefulSet> {
        self.stateful_sets.named(&names.set())
    }
}

/// The kind PodMonitor, which a cluster may not know.
pub fn pod_monitor_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"))
}

/// Reads everything.
///
/// # Errors
///
/// [`Error::Read`] for the first that cannot be read: nothing is decided from half a picture.
pub async fn fetch(context: &Context, valid: &Valid) -> Result<Observed, Error> {
    let names = &valid.names;
    let name = names.set();
    let (stateful_sets, services, config_maps, service_accounts, disruption_budgets, network_policies, pods) =
        tokio::try_join!(
            children(context, names, vec![name.clone()]),
            children(context, names, vec![name.clone(), names.peers()]),
            children(context, names, vec![names.config()]),
            children(context, names, vec![name.clone()]),
            children(context, names, vec![name.clone()]),
            children(context, names, vec![name.clone()]),
            list(context.api::<Pod>(&names.namespace), "Pod", names.selector_text()),
        )?;
    let pod_monitors = pod_monitors(context, names).await?;
    let claims = if valid.storage.is_ephemeral {
        Vec::new()
    } else {
        let api = context.api::<PersistentVolumeClaim>(&names.namespace);
        list(api, "PersistentVolumeClaim", names.selector_text()).await?
    };
    let mut observed = Observed {
        stateful_sets,
        services,
        config_maps,
        service_accounts,
        disruption_budgets,
        network_policies,
        pod_monitors,
        pods,
        claims,
        ..Observed::default()
    };
    observed.nodes = nodes::ask_all(&context.ask, running(&observed.pods)).await;
    observed.found = find_peers(context, valid, &observed).await;
    Ok(observed)
}

/// Pods whose node may answer.
fn running(pods: &[Pod]) -> Vec<(String, IpAddr)> {
    let address = |pod: &Pod| {
        let status = pod.status.as_ref()?;
        let is_running = status.phase.as_deref() == Some("Running");
        let ip = status.pod_ip.as_ref()?.parse().ok()?;
        is_running.then(|| (pod.name_any(), ip))
    };
    pods.iter().filter_map(address).collect()
}

async fn find_peers(context: &Context, valid: &Valid, observed: &Observed) -> Vec<Found> {
    let names = &valid.names;
    let list = observed.config_maps.named(&names.config()).and_then(|map| map.data.as_ref()?.get(PEERS_KEY));
    let known = list.map(|text| peers::read_list(text)).unwrap_or_default();
    let live: Vec<String> = observed
        .nodes
        .values()
        .flatten()
        .flat_map(|node| &node.members)
        .filter(|member| member.state == mneme_api::MemberStateName::Live)
        .map(|member| member.address.clone())
        .collect();
    let is_in_contact = move |address: &str| live.iter().any(|live| live == address);
    let set = format!("{}/{}", names.namespace, names.name);
    context.resolver.find(&set, &valid.sources, &known, &is_in_contact).await
}

/// Objects of a kind by label; names that are not among them are asked for, for somebody else may have them.
async fn children<K>(context: &Context, names: &Names, wanted: Vec<String>) -> Result<Children<K>, Error>
where
    K: Object + Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let kind = K::kind(&()).into_owned();
    named_children(&context.api::<K>(&names.namespace), &kind, names, &wanted).await
}

async fn named_children<K: Object>(
    api: &Api<K>,
    kind: &str,
    names: &Names,
    wanted: &[String],
) -> Result<Children<K>, Error> {
    let owned = list(api.clone(), kind, names.owned_text()).await?;
    let mut foreign = Vec::new();
    for name in wanted {
        if owned.iter().any(|object: &K| object.meta().name.as_ref() == Some(name)) {
            continue;
        }
        let read = api.get_opt(name).await;
        foreign.extend(read.map_err(|source| Error::Read { kind: kind.to_owned(), source })?);
    }
    Ok(Children { owned, foreign })
}

async fn pod_monitors(context: &Context, names: &Names) -> Result<Option<Children<DynamicObject>>, Error> {
    let kind = pod_monitor_kind();
    let api = Api::<DynamicObject>::namespaced_with(context.writer.client(), &names.namespace, &kind);
    match named_children(&api, "PodMonitor", names, &[names.set()]).await {
        Ok(children) => Ok(Some(children)),
        // The kind is not installed, or the operator was given no right to it: then it is not used.
        Err(Error::Read { source: kube::Error::Api(status), .. }) if matches!(status.code, 403 | 404) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn list<K: Object>(api: Api<K>, kind: &str, labels: String) -> Result<Vec<K>, Error> {
    let listed = api.list(&ListParams::default().labels(&labels)).await;
    listed.map(|list| list.items).map_err(|source| Error::Read { kind: kind.to_owned(), source })
}
