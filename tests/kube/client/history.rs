//! What one session may show, given what its owner did and which answers came.

/// What a read of a session showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// 200 with this value.
    Value(String),
    /// 404 or 410.
    Nothing,
}

/// What was wrong with a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A value that was replaced by an acknowledged write.
    LostWrite,
    /// A session that was signed out, with an acknowledgement.
    Revived,
    /// A session that is signed in and cannot be read.
    FalseLogout,
}

/// One session. Its owner does one thing after another, so what is acknowledged is known in order.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: String,
    acknowledged: String,
    /// Values of writes that failed without saying whether they were applied: each may show up, even later.
    possible: Vec<String>,
    is_signed_out: bool,
}

impl Session {
    /// A session whose first write was acknowledged.
    pub(crate) fn signed_in(key: String, value: String) -> Self {
        Self { key, acknowledged: value, possible: Vec::new(), is_signed_out: false }
    }

    /// A write was acknowledged.
    pub(crate) fn written(&mut self, value: String) {
        self.acknowledged = value;
    }

    /// A write failed, and nobody said that it was not applied.
    pub(crate) fn maybe_written(&mut self, value: String) {
        self.possible.push(value);
    }

    /// The sign-out was acknowledged.
    pub(crate) fn signed_out(&mut self) {
        self.is_signed_out = true;
    }

    /// What is wrong with a read that began after the last answer, if anything.
    pub(crate) fn check(&self, seen: &Seen) -> Option<Finding> {
        match (seen, self.is_signed_out) {
            (Seen::Value(_), true) => Some(Finding::Revived),
            (Seen::Nothing, false) => Some(Finding::FalseLogout),
            (Seen::Value(value), false) if *value != self.acknowledged && !self.possible.contains(value) => {
                Some(Finding::LostWrite)
            }
            (Seen::Value(_), false) | (Seen::Nothing, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(session: &Session, value: Option<&str>, finding: Option<Finding>) {
        let seen = value.map_or(Seen::Nothing, |value| Seen::Value(value.to_owned()));
        assert_eq!(session.check(&seen), finding, "{session:?}");
    }

    #[test]
    fn each_kind_of_loss_is_told_from_the_others() {
        let mut session = Session::signed_in("key".to_owned(), "1".to_owned());
        check(&session, Some("1"), None);
        check(&session, None, Some(Finding::FalseLogout));
        session.written("2".to_owned());
        check(&session, Some("1"), Some(Finding::LostWrite));
        session.signed_out();
        check(&session, Some("2"), Some(Finding::Revived));
        check(&session, None, None);
    }

    #[test]
    fn a_write_without_an_answer_may_show_or_not() {
        let mut session = Session::signed_in("key".to_owned(), "1".to_owned());
        session.maybe_written("2".to_owned());
        check(&session, Some("1"), None);
        check(&session, Some("2"), None);
        check(&session, Some("3"), Some(Finding::LostWrite));
    }
}
