//! The requests that nearly every test makes, by their short names, on the table `sessions`.

use crate::http::{Request, Response};
use crate::node::Node;

/// The path of a record of the table `sessions`.
#[must_use]
pub fn record(key: &str) -> String {
    format!("/v1/tables/sessions/records/{key}")
}

impl Node {
    /// A request that stores `value`.
    pub fn put(&self, key: &str, value: &str) -> Request {
        self.client("PUT", record(key)).body(value.to_owned())
    }

    /// A request that deletes.
    pub fn delete(&self, key: &str) -> Request {
        self.client("DELETE", record(key))
    }

    /// The answer to a read.
    pub async fn read(&self, key: &str) -> Response {
        self.get(record(key)).await
    }

    /// The status of a read.
    pub async fn read_status(&self, key: &str) -> u16 {
        self.read(key).await.code()
    }

    /// Checks that a read gives this value.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn assert_value(&self, key: &str, value: &str) {
        let answer = self.read(key).await;
        assert_eq!((answer.code(), answer.text().as_str()), (200, value), "{key} on {}", self.spec.name);
    }

    /// Checks that a read gives this status.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn assert_read_status(&self, key: &str, status: u16) {
        assert_eq!(self.read_status(key).await, status, "{key} on {}", self.spec.name);
    }
}
