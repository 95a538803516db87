//! The custom resource: its types, and what is printed of them.

mod reference;
mod rules;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

pub use self::reference::reference;
use self::v1alpha1::SessionCache;

/// The definition as the API server gets it.
///
/// A null in the place of an optional field means that the field is absent, as `kubectl` users expect: for that the schema
/// must not call it nullable. Line breaks of the source mean nothing in a description.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = SessionCache::crd();
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        schema.into_iter().for_each(tidy);
    }
    definition
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description = description.replace('\n', " ");
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(tidy);
}

/// `manifests/crd.yaml`.
///
/// # Errors
///
/// When the definition cannot be written as YAML.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    let body = serde_yaml::to_string(&definition())?;
    Ok(format!("# Written by `mneme-operator crd`. Do not edit.\n{body}"))
}

#[cfg(test)]
mod tests;
