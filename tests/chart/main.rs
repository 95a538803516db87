//! The chart, without a cluster: what it renders under which values, what it refuses, and that everything made from it is
//! as it would be made now.
//!
//! Needs helm and kubeconform, in the directory `MNEME_KUBE_TOOLS` (`tests/kube/node-image/binaries tools` builds them and
//! prints it) or on the path.

mod alerts;
mod conformance;
mod helm;
mod manifests;
mod pods;
mod rights;
mod values;
