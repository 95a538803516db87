//! The texts of the validation rules, in CEL, and the messages a user reads.
//!
//! What a pattern of the schema could say is said by a rule all the same: a pattern's message is the pattern.

use kube::core::Rule;

/// A whole number with a unit.
const DURATION: &str = "^[0-9]{1,9}(ms|s|m|h|d)$";
/// Ten years, as the nodes have it.
const DURATION_MS_MAX: &str = "315360000000";
/// A port from 1 to 65535.
const PORT: &str =
    "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?";
/// Name of a Service: a label of DNS that begins with a letter.
const SERVICE: &str = "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$";

fn is_duration(field: &str) -> String {
    format!("{field}.matches('{DURATION}')")
}

/// Milliseconds of a duration that matches [`DURATION`]; CEL's own durations know no days.
fn millis(field: &str) -> String {
    format!(
        "({field}.endsWith('ms') ? int({field}.replace('ms', '')) : int({field}.substring(0, {field}.size() - 1)) * \
         ({field}.endsWith('s') ? 1000 : {field}.endsWith('m') ? 60000 : {field}.endsWith('h') ? 3600000 : 86400000))"
    )
}

/// Both fields are durations, or there is nothing to compare: each has a rule of its own.
fn at_most(smaller: &str, larger: &str) -> String {
    format!(
        "!{} || !{} || {} <= {}",
        is_duration(smaller),
        is_duration(larger),
        millis(smaller),
        millis(larger)
    )
}

/// The name of the resource.
pub(super) fn name() -> Rule {
    Rule::new("self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message(
            "the name is at most 50 lowercase letters, digits and hyphens, begins with a letter and ends with a \
             letter or digit: Services and pods are named after it",
        )
}

/// The cluster's name, given or not.
pub(super) fn cluster_name_is_immutable() -> Rule {
    let effective = |object: &str| {
        format!("(has({object}.spec.clusterName) ? {object}.spec.clusterName : self.metadata.name)")
    };
    Rule::new(format!("{} == {}", effective("self"), effective("oldSelf"))).message(
        "spec.clusterName is immutable: nodes refuse peers of another cluster, their old selves too; make a new \
         SessionCache instead",
    )
}

pub(super) fn cluster_name() -> Rule {
    Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$')").message(
        "clusterName is 1 to 253 letters, digits, hyphens, underscores and dots, and begins and ends with a letter \
         or digit",
    )
}

pub(super) fn table_name() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message(
        "a table name is 1 to 63 lowercase letters, digits and hyphens, and begins and ends with a letter or digit",
    )
}

pub(super) fn table_kind_is_immutable() -> Rule {
    Rule::new("self == oldSelf").message(
        "the kind of a table is immutable: nodes keep it in their files; declare a table of another name instead",
    )
}

pub(super) fn duration() -> Rule {
    Rule::new(is_duration("self"))
        .message("a duration is a whole number and a unit: 500ms, 30s, 15m, 12h or 30d")
}

pub(super) fn duration_in_bounds() -> Rule {
    Rule::new(format!(
        "!{} || ({millis} > 0 && {millis} <= {DURATION_MS_MAX})",
        is_duration("self"),
        millis = millis("self")
    ))
    .message("a duration is more than zero and at most 3650d")
}

pub(super) fn ttl_within_age() -> Rule {
    Rule::new(at_most("self.defaultTtl", "self.maxAge")).message("defaultTtl is longer than maxAge")
}

pub(super) fn touch_within_ttl() -> Rule {
    Rule::new(format!("!has(self.touchResolution) || {}", at_most("self.touchResolution", "self.defaultTtl")))
        .message("touchResolution is longer than defaultTtl")
}

pub(super) fn hosts() -> Rule {
    let name = format!("^[A-Za-z0-9]([-A-Za-z0-9_.]{{0,251}}[A-Za-z0-9])?{PORT}$");
    let ipv6 = format!("^\\\\[[0-9A-Fa-f:.]{{2,45}}\\\\]{PORT}$");
    let bare = "^[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,35}$";
    let service = "^_[-A-Za-z0-9]{1,62}\\\\._(tcp|udp)\\\\.[-A-Za-z0-9_.]{1,180}$";
    Rule::new(format!(
        "self.all(host, host.matches('{name}') || host.matches('{ipv6}') || host.matches('{bare}') || \
         host.matches('{service}'))"
    ))
    .message(
        "a host is a name or an IPv4 address with or without :port (10.0.0.5:7071, cache.example.com), an IPv6 \
         address ([fd00::5]:7071, fd00::5), or the name of an SRV record (_mneme._tcp.example.com)",
    )
}

pub(super) fn service_name() -> Rule {
    Rule::new(format!("self.matches('{SERVICE}')")).message(
        "the name of a Service is 1 to 63 lowercase letters, digits and hyphens and begins with a letter",
    )
}

pub(super) fn namespace_name() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message(
        "the name of a namespace is 1 to 63 lowercase letters, digits and hyphens, and begins and ends with a \
         letter or digit",
    )
}

pub(super) fn secret_name() -> Rule {
    Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$')").message(
        "the name of a Secret is 1 to 253 lowercase letters, digits, hyphens and dots, and begins and ends with a \
         letter or digit",
    )
}

pub(super) fn storage_size() -> Rule {
    Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
        .message("the size of a volume is a quantity above zero: 500Mi, 1Gi, 20Gi")
}

pub(super) fn storage_may_not_shrink() -> Rule {
    Rule::new(
        "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0",
    )
    .message("storage.size may not shrink: volumes cannot; make a new SessionCache and let it replicate instead")
}

pub(super) fn storage_class_is_immutable() -> Rule {
    Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || \
         self.storageClassName == oldSelf.storageClassName)",
    )
    .message("storage.storageClassName is immutable: claims keep the class they were made with")
}

pub(super) fn ephemeral_is_immutable() -> Rule {
    Rule::new("self.ephemeral == oldSelf.ephemeral")
        .message("storage.ephemeral is immutable: the volumes of a running set cannot change their kind")
}

pub(super) fn image() -> Rule {
    Rule::new("self == '' || self.matches('^[A-Za-z0-9][^ \\t\\n]*$')")
        .message("an image reference has no spaces")
}

pub(super) fn version() -> Rule {
    Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}$')")
        .message("a version is a tag of the image: letters, digits, underscores, dots and hyphens")
}

/// Names of labels by which the operator finds what is its own.
pub(super) fn labels() -> Rule {
    Rule::new(
        "!('app.kubernetes.io/name' in self) && !('app.kubernetes.io/instance' in self) && \
         !('app.kubernetes.io/component' in self) && !('app.kubernetes.io/managed-by' in self)",
    )
    .message("the labels app.kubernetes.io/name, instance, component and managed-by are the operator's own")
}
