//! The last good addresses, on disk: what a node dials when it starts while discovery fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Discovered;

/// Name of the file in the data directory.
const FILE_NAME: &str = "peers.json";

/// Addresses by source, as an earlier run left them; empty when there is none or it cannot be read.
pub fn load(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let path = directory.join(FILE_NAME);
    let read = std::fs::read_to_string(&path).ok();
    let parsed = read.map(|text| serde_json::from_str(&text));
    match parsed {
        None => BTreeMap::new(),
        Some(Ok(addresses)) => addresses,
        Some(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "the last good addresses cannot be read");
            BTreeMap::new()
        }
    }
}

/// Keeps the file as discovery has it until `stop`.
pub async fn keep(directory: PathBuf, mut discovered: watch::Receiver<Discovered>, stop: CancellationToken) {
    let mut written = load(&directory);
    loop {
        let known: BTreeMap<String, Vec<String>> = discovered
            .borrow_and_update()
            .sources
            .iter()
            .filter(|source| source.has_answered)
            .map(|source| (source.source.clone(), source.addresses().cloned().collect()))
            .collect();
        if known.iter().any(|(source, addresses)| written.get(source) != Some(addresses)) {
            written.extend(known);
            if let Err(error) = save(&directory, &written).await {
                tracing::warn!(%error, "failed to write the last good addresses");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = discovered.changed() => if changed.is_err() { return },
        }
    }
}

/// Written beside and renamed, so that a reader finds the old or the new.
async fn save(directory: &Path, addresses: &BTreeMap<String, Vec<String>>) -> std::io::Result<()> {
    let (path, beside) = (directory.join(FILE_NAME), directory.join(format!("{FILE_NAME}.new")));
    tokio::fs::write(&beside, serde_json::to_vec_pretty(addresses)?).await?;
    tokio::fs::rename(&beside, &path).await
}
