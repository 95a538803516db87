//! When an object is looked at again, by what happened.

use std::collections::HashMap;
use std::time::Duration;

use kube::runtime::controller::Action;
use parking_lot::Mutex;

use crate::writer::WriteError;

/// Pause while something is under way.
pub const PROGRESSING: Duration = Duration::from_secs(2);
/// Pause while all is well: how old the status of members may be.
pub const STEADY: Duration = Duration::from_secs(20);
/// First pause after an error that may pass by itself.
const TRANSIENT_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const TRANSIENT_MAX: Duration = Duration::from_secs(60);
/// Pause after an error that somebody has to act on, elsewhere than in the object.
const REFUSED: Duration = Duration::from_secs(60);

/// What kind of error it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody else wrote meanwhile: look again at once.
    Conflict,
    /// The API server is busy and says for how long.
    Throttled(Duration),
    /// The API server or the network: it may pass by itself.
    Transient,
    /// Rights are missing: somebody has to grant them.
    Forbidden,
    /// The API server refuses what was built: the object, or something in the cluster, has to change.
    Invalid,
    /// This process does not lead: the next one does the work.
    NotLeading,
}

impl Class {
    /// Class of an error of the API.
    pub fn of(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Transient };
        let retry_after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        match status.code {
            409 => Self::Conflict,
            429 => Self::Throttled(Duration::from_secs(u64::from(retry_after.clamp(1, 60)))),
            401 | 403 => Self::Forbidden,
            // 404 of a write: the namespace, or the kind, is gone or on its way.
            400 | 422 => Self::Invalid,
            _ => Self::Transient,
        }
    }

    /// Class of a failed write.
    pub fn of_write(error: &WriteError) -> Self {
        match error {
            WriteError::NotLeading => Self::NotLeading,
            WriteError::Timeout { .. } => Self::Transient,
            WriteError::Api { source, .. } => Self::of(source),
        }
    }
}

/// Failures in a row of each object.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Mutex<HashMap<String, u32>>,
}

impl Failures {
    /// An object was reconciled, or is gone.
    pub fn forget(&self, key: &str) {
        self.counts.lock().remove(key);
    }

    /// An object failed: how long to wait.
    pub fn after(&self, key: &str, class: Class) -> Action {
        let failures = {
            let mut counts = self.counts.lock();
            let count = counts.entry(key.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        match pause(class, failures) {
            Some(pause) => Action::requeue(jitter(pause)),
            None => Action::await_change(),
        }
    }
}

/// Pause after so many failures in a row; `None`: until the object changes.
fn pause(class: Class, failures: u32) -> Option<Duration> {
    let doubled = TRANSIENT_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(6));
    match class {
        Class::Conflict => Some(Duration::from_millis(200) * failures.min(50)),
        Class::Throttled(pause) => Some(pause),
        Class::Transient => Some(doubled.min(TRANSIENT_MAX)),
        Class::Forbidden | Class::Invalid => Some(REFUSED),
        Class::NotLeading => None,
    }
}

/// Up to a quarter more, so that objects which failed together are not tried together.
pub fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(1.0..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16) -> kube::Error {
        kube::Error::Api(Status { code, ..Status::failure("", "") }.boxed())
    }

    #[test]
    fn errors_have_classes() {
        for (code, class) in [
            (409, Class::Conflict),
            (429, Class::Throttled(Duration::from_secs(1))),
            (403, Class::Forbidden),
            (422, Class::Invalid),
            (500, Class::Transient),
            (404, Class::Transient),
        ] {
            assert_eq!(Class::of(&api(code)), class, "{code}");
        }
    }

    #[test]
    fn pauses_after_transient_errors_double_up_to_a_minute() {
        let seconds = |failures| pause(Class::Transient, failures).map(|pause| pause.as_secs());
        assert_eq!([1, 2, 3, 4, 6, 7, 100].map(seconds), [1, 2, 4, 8, 32, 60, 60].map(Some));
    }

    #[test]
    fn success_forgets_the_failures() {
        let failures = Failures::default();
        for _ in 0..3 {
            failures.after("a", Class::Transient);
        }
        assert_eq!(failures.counts.lock().get("a"), Some(&3));
        failures.forget("a");
        assert!(failures.counts.lock().is_empty());
    }
}
