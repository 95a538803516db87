//! What the operator may do, where.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{NAMESPACE, name, namespace, of_kind, one, render, text, texts};

/// Kinds of objects that are of no namespace.
const CLUSTER_KINDS: [&str; 2] = ["ClusterRole", "ClusterRoleBinding"];

/// One right: group, resource, name of the one object or nothing, verb.
type Right = (String, String, String, String);

/// The rights in rules.
fn rights(rules: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let names = texts(&rule["resourceNames"]);
        let names = if names.is_empty() { vec![String::new()] } else { names };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    for verb in texts(&rule["verbs"]) {
                        let right = (group.clone(), resource.clone(), name.clone(), verb);
                        assert!(rights.insert(right.clone()), "given twice: {right:?}");
                    }
                }
            }
        }
    }
    rights
}

/// The rights of the table in operator/DESIGN.md: those of the scope, and those of the operator's own namespace.
fn documented() -> (BTreeSet<Right>, BTreeSet<Right>) {
    let (mut scope, mut own) = (BTreeSet::new(), BTreeSet::new());
    let design = text("operator/DESIGN.md");
    let (_, section) = design.split_once("## RBAC").expect("a section on RBAC");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [group, resources, verbs, _why] = cells[..] else { panic!("four cells: {row}") };
        // `leases`, name `mneme-operator` (1)
        let (kinds, name) = resources.split_once(", name ").unwrap_or((resources, ""));
        let group = if group == "(core)" { "" } else { group.trim_matches('`') };
        let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        for resource in quoted(kinds) {
            for verb in verbs.split(", ") {
                let name = quoted(name).pop().unwrap_or_default();
                let right = (group.to_owned(), resource.clone(), name, verb.to_owned());
                let rights = if resources.contains("(1)") { &mut own } else { &mut scope };
                assert!(rights.insert(right), "listed twice: {row}");
            }
        }
    }
    assert!(!scope.is_empty() && !own.is_empty(), "the table is empty");
    (scope, own)
}

#[test]
fn the_rights_are_those_that_the_design_lists() {
    let (scope, own) = documented();
    let objects = render(&["rbac.aggregateRoles=false"]);
    assert_eq!(rights(&one(&objects, "ClusterRole")["rules"]), scope);
    assert_eq!(rights(&one(&objects, "Role")["rules"]), own);
    let objects = render(&["rbac.aggregateRoles=false", "scope.namespaces={shop}"]);
    let roles = of_kind(&objects, "Role");
    let of = |namespace_: &str| roles.iter().find(|role| namespace(role) == namespace_).expect("a Role");
    assert_eq!(rights(&of("shop")["rules"]), scope);
    assert_eq!(rights(&of(NAMESPACE)["rules"]), own);
}

#[test]
fn nothing_reads_secrets_and_nothing_deletes_data() {
    for settings in [&[][..], &["scope.namespaces={a,b}"]] {
        let objects = render(settings);
        let roles = objects
            .iter()
            .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
        for right in roles.flat_map(|role| rights(&role["rules"])) {
            let (group, resource, _, verb) = &right;
            assert!([group, resource, verb].iter().all(|part| *part != "*"), "{right:?}");
            match resource.as_str() {
                "secrets" => assert_eq!(verb, "create"),
                "persistentvolumeclaims" | "pods" | "statefulsets" => {
                    assert!(!verb.starts_with("delete"), "{right:?}");
                }
                "pods/exec" | "pods/eviction" | "nodes" => panic!("{right:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn every_rule_has_its_reason_above_it() {
    for (file, start) in [
        ("charts/mneme/templates/_helpers.tpl", "define \"mneme.rules\""),
        ("charts/mneme/templates/rbac.yaml", "kind: Role\n"),
        ("charts/mneme/templates/aggregate-roles.yaml", "rules:"),
    ] {
        let text = text(file);
        let (_, rules) = text.split_once(start).expect("rules");
        let lines: Vec<&str> = rules.lines().map(str::trim).collect();
        let mut count = 0;
        for pair in lines.windows(2).filter(|pair| pair[1].starts_with("- apiGroups:")) {
            assert!(pair[0].starts_with('#'), "{file}: a rule without a reason after {:?}", pair[0]);
            count += 1;
        }
        assert!(count > 0, "no rule in {file}");
    }
}

#[test]
fn all_namespaces_are_served_by_one_cluster_role() {
    let objects = render(&["rbac.aggregateRoles=false"]);
    let binding = one(&objects, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], name(one(&objects, "ClusterRole")));
    assert_eq!(binding["subjects"][0]["name"], name(one(&objects, "ServiceAccount")));
    assert_eq!(binding["subjects"][0]["namespace"], NAMESPACE);
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert!(!container["env"].to_string().contains("MNEME_OPERATOR_NAMESPACES"));
}

#[test]
fn named_namespaces_are_served_by_roles_alone() {
    let objects = render(&["scope.namespaces={shop,web}", "rbac.aggregateRoles=false", "crds.install=false"]);
    for object in &objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        assert!(
            !CLUSTER_KINDS.contains(&kind) && kind != "CustomResourceDefinition",
            "{kind} {}",
            name(object)
        );
        assert!(!namespace(object).is_empty(), "{kind} {} is of no namespace", name(object));
    }
    for kind in ["Role", "RoleBinding"] {
        let namespaces: BTreeSet<&str> = of_kind(&objects, kind).into_iter().map(namespace).collect();
        assert_eq!(namespaces, [NAMESPACE, "shop", "web"].into(), "{kind}");
    }
    for binding in of_kind(&objects, "RoleBinding") {
        let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
        let roles = of_kind(&objects, "Role");
        assert!(
            roles.iter().any(|found| name(found) == role && namespace(found) == namespace(binding)),
            "no Role {role}"
        );
        assert_eq!(binding["subjects"][0]["namespace"], NAMESPACE);
        assert_eq!(binding["subjects"][0]["name"], name(one(&objects, "ServiceAccount")));
    }
    let env = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"];
    let namespaces =
        env.as_array().into_iter().flatten().find(|one| one["name"] == "MNEME_OPERATOR_NAMESPACES");
    assert_eq!(namespaces.expect("the namespaces are told")["value"], "shop,web");
}

#[test]
fn view_edit_and_admin_are_extended_and_status_stays_the_operators() {
    let objects = render(&[]);
    let role = |end: &str| {
        let roles = of_kind(&objects, "ClusterRole");
        (*roles.iter().find(|role| name(role).ends_with(end)).expect("a ClusterRole")).clone()
    };
    let label = |role: &Value, to: &str| {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true"
    };
    let (view, edit) = (role("-view"), role("-edit"));
    assert!(["view", "edit", "admin"].iter().all(|to| label(&view, to)));
    assert!(["edit", "admin"].iter().all(|to| label(&edit, to)) && !label(&edit, "view"));
    for (_, resource, _, verb) in rights(&view["rules"]) {
        assert!(["get", "list", "watch"].contains(&verb.as_str()), "{resource}: {verb}");
    }
    assert!(rights(&edit["rules"]).iter().all(|(_, resource, _, _)| resource != "sessioncaches/status"));
    let bound = of_kind(&objects, "ClusterRoleBinding");
    assert!(
        bound
            .iter()
            .all(|binding| !binding["roleRef"]["name"].as_str().is_some_and(|name| name.contains('-')))
    );
}

#[test]
fn without_rbac_or_account_the_names_of_others_are_used() {
    let objects = render(&["rbac.create=false", "serviceAccount.create=false", "serviceAccount.name=mine"]);
    assert!(
        ["Role", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"]
            .iter()
            .all(|kind| of_kind(&objects, kind).is_empty())
    );
    assert_eq!(one(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"], "mine");
}
