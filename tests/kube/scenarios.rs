//! The scenarios. Each is one function, which panics when something is not as it should be.

mod chart;
mod children;
mod first;
mod many;
mod nodes;
mod operator;
mod peers;
mod pods;
mod rolling;
mod scale;
mod schema;

use std::pin::Pin;

use crate::suite::Suite;

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether it touches what others rely on.
    pub(crate) is_alone: bool,
    pub(crate) run: for<'a> fn(&'a Suite) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

macro_rules! scenarios {
    ($is_alone:expr; $($module:ident :: $name:ident),* $(,)?) => {
        [$(Scenario {
            name: concat!(stringify!($module), "::", stringify!($name)),
            is_alone: $is_alone,
            run: |suite| Box::pin($module::$name(suite)),
        }),*]
    };
}

/// All of them, in the order in which they begin.
pub(crate) fn all() -> Vec<Scenario> {
    let together = scenarios![false;
        first::a_session_is_served_after_one_apply,
        first::waiting_right_after_an_apply_is_safe,
        scale::up_and_down_and_to_nothing_and_back,
        rolling::a_bad_image_stops_at_one_pod,
        rolling::another_image_rolls_through,
        rolling::another_configuration_rolls_through,
        pods::one_is_deleted,
        pods::all_are_deleted_at_once,
        pods::a_node_process_is_killed,
        schema::bad_objects_are_refused_in_words,
        children::those_that_are_edited_or_deleted_come_back,
        children::a_foreign_object_in_the_way_is_left_alone,
        rolling::a_paused_set_is_left_alone,
        rolling::tokens_are_rotated_without_a_restart,
        scale::a_deleted_claim_is_made_anew,
        rolling::the_cluster_secret_is_rotated_without_a_restart,
        scale::claims_go_only_when_told_to,
        scale::a_larger_volume_is_asked_of_the_claims,
        scale::ephemeral_nodes_come_back_from_the_others,
        peers::a_host_outside_the_cluster_goes_and_returns,
        peers::another_set_is_a_peer_by_its_headless_service,
        peers::a_headless_service_that_names_nobody_removes_no_peer,
        first::every_example_works,
        chart::its_own_test_passes_twice,
    ];
    let alone = scenarios![true;
        nodes::one_is_cut_from_the_network_and_heals,
        nodes::one_is_drained,
        nodes::the_api_server_freezes,
        operator::pods_die_while_it_is_down,
        operator::it_is_killed_in_a_rolling_change,
        operator::two_of_them_act_as_one,
        operator::it_serves_one_namespace_with_the_rights_of_its_role,
        operator::a_namespace_is_deleted_without_it,
        operator::one_that_cannot_be_read_stops_no_other,
        children::a_pod_monitor_is_made_where_its_kind_is_known,
        operator::an_upgrade_of_the_chart_restarts_no_node,
        many::fifty_at_once,
        operator::uninstalling_keeps_the_resource_and_its_data,
    ];
    together.into_iter().chain(alone).collect()
}
