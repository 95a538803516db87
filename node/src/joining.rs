//! What a node does until it serves: it tells the replica whom discovery knows, and people whom it waits for.

use std::sync::Arc;
use std::time::Duration;

use mneme_replica::event::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::peers::discovery::Discovered;

/// How long a node waits for its peers without a word about it.
const SILENCE: Duration = Duration::from_secs(3);
/// How often it says so again.
const WORD_PAUSE: Duration = Duration::from_secs(30);

/// Tells the replica what discovery knows.
pub(crate) async fn follow_discovery(
    driver: Arc<Driver>,
    mut discovered: watch::Receiver<Discovered>,
    stop: CancellationToken,
) {
    loop {
        let event = {
            let discovered = discovered.borrow_and_update();
            Event::Discovered {
                addresses: discovered.addresses().into_iter().collect(),
                is_configured: discovered.is_configured(),
                is_complete: discovered.is_complete(),
            }
        };
        driver.step(event);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = discovered.changed() => if changed.is_err() {
                stop.cancelled().await;
                return;
            },
        }
    }
}

/// Says whom a node waits for that has not served since its start.
pub(crate) async fn tell_waiting(
    driver: Arc<Driver>,
    discovered: watch::Receiver<Discovered>,
    stop: CancellationToken,
) {
    let mut pause = SILENCE;
    let told = async {
        while driver.wait_until_serving(pause).await.is_none() {
            let (tried, lacking) = waiting_for(&discovered.borrow());
            tracing::warn!(tried, lacking, "not serving yet: waiting for peers");
            pause = WORD_PAUSE;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        // A task that ends before the node does would be taken for a dead one.
        () = told => stop.cancelled().await,
    }
}

/// The addresses that are tried, and the sources that have named nobody since the start.
fn waiting_for(discovered: &Discovered) -> (String, String) {
    let tried: Vec<String> = discovered.addresses().into_iter().collect();
    let silent = discovered.sources.iter().filter(|source| !source.has_answered);
    let silent: Vec<String> = silent
        .map(|source| match &source.last_error {
            Some(error) => format!("{} ({error})", source.source),
            None => source.source.clone(),
        })
        .collect();
    (tried.join(", "), silent.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::discovery::{Answer, SourceState};

    #[test]
    fn a_source_that_named_nobody_is_lacking_with_its_error() {
        let mut dns = SourceState::remembered("peers-dns:x:7071".to_owned(), ["b:1".to_owned()]);
        dns.take(Answer::failed("SERVFAIL".to_owned()), 1, |_| false);
        let mut list = SourceState::remembered("peer".to_owned(), []);
        let named = Answer { addresses: ["a:1".to_owned()].into(), is_whole: true, error: None };
        list.take(named, 1, |_| false);
        let (tried, lacking) = waiting_for(&Discovered { sources: vec![list, dns] });
        assert_eq!((tried.as_str(), lacking.as_str()), ("a:1, b:1", "peers-dns:x:7071 (SERVFAIL)"));
    }
}
