//! What the chart itself brings for its users.

use std::time::Instant;

use crate::suite::{OPERATOR_NAMESPACE, Suite};

/// `helm test`: it makes a set of two nodes, writes through one, reads through both, and takes the set away.
pub(crate) async fn its_own_test_passes_twice(suite: &Suite) {
    for _ in 0..2 {
        let started = Instant::now();
        let namespace = ["--namespace", OPERATOR_NAMESPACE];
        let said = suite.helm(&["test", "mneme", namespace[0], namespace[1], "--timeout", "4m"]);
        println!("chart: its test took {:.1} s", started.elapsed().as_secs_f32());
        assert!(said.contains("Succeeded") && !said.contains("Failed"), "{said}");
        let left =
            suite.api.kubectl_expect(&["get", "scache,pods", "--output", "name", namespace[0], namespace[1]]);
        let is_left = |name: &str| name.ends_with("/mneme-test") || name.ends_with("/mneme-test-client");
        assert!(!left.lines().any(is_left), "{left}");
    }
}
