//! Who may use the client port: tokens of a file, reread when it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a file of secrets is looked at: twice in the five seconds that are promised.
const RELOAD_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of a file of secrets, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file of tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// A line is not `name:token`.
    #[error("line {line}: a line is name:token, both not empty, the token of printable ASCII without spaces")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A name is there twice: whoever takes one line out believes that the name is shut out.
    #[error("line {line}: the name of line {first} again")]
    Twice {
        /// Its number, from 1.
        line: usize,
        /// The other's.
        first: usize,
    },
    /// No line at all.
    #[error("there is no token in it")]
    Empty,
}

/// The tokens of a file.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthTokens {
    /// Hashes, so that comparing takes the same time whatever is compared.
    hashes: Vec<[u8; 32]>,
}

impl std::fmt::Debug for AuthTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.hashes.len())
    }
}

/// Whether a client can send it as it is.
fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

impl AuthTokens {
    /// Tokens from lines `name:token`; blank lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    ///
    /// [`TokensError`], never with a token in it.
    pub fn from_text(text: &str) -> Result<Self, TokensError> {
        let (mut hashes, mut names) = (Vec::new(), HashMap::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(':') {
                Some((name, token)) if !name.is_empty() && is_token(token) => {
                    if let Some(first) = names.insert(name, index + 1) {
                        return Err(TokensError::Twice { line: index + 1, first });
                    }
                    hashes.push(*blake3::hash(token.as_bytes()).as_bytes());
                }
                _ => return Err(TokensError::Line { line: index + 1 }),
            }
        }
        if hashes.is_empty() { Err(TokensError::Empty) } else { Ok(Self { hashes }) }
    }

    /// Whether a request carries one of the tokens; in constant time.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let bearer = || {
            let mut values = headers.get_all(AUTHORIZATION).iter();
            let value = values.next()?.as_bytes();
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            // Two are no credentials: who stands in between may have looked at the other.
            let is_one = scheme.eq_ignore_ascii_case(b"Bearer ") && values.next().is_none();
            is_one.then(|| token.trim_ascii_start())
        };
        let Some(token) = bearer() else { return false };
        let given = blake3::hash(token);
        let is_known = |known: Choice, hash: &[u8; 32]| known | hash[..].ct_eq(&given.as_bytes()[..]);
        self.hashes.iter().fold(Choice::from(0), is_known).into()
    }
}

/// Reads a file of secrets.
///
/// # Errors
///
/// When it cannot be read or is too large.
pub fn read_file(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other("the file is larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

/// Keeps `current` as the file has it until `stop`; a file that is bad, empty or gone leaves the last good content.
pub async fn follow<T: PartialEq>(
    path: PathBuf,
    parse: impl Fn(&str) -> Result<T, String>,
    current: watch::Sender<T>,
    stop: CancellationToken,
) {
    let mut last_error = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RELOAD_PAUSE) => {}
        }
        let read = read_file(&path).map_err(|error| error.to_string()).and_then(|text| parse(&text));
        match read {
            Ok(parsed) => {
                last_error = None;
                let is_changed = current.send_if_modified(|current| {
                    let is_changed = *current != parsed;
                    *current = parsed;
                    is_changed
                });
                if is_changed {
                    tracing::info!(path = %path.display(), "read the file of secrets again");
                }
            }
            Err(error) => {
                if last_error.as_ref() != Some(&error) {
                    tracing::error!(path = %path.display(), error, "the file of secrets is bad: the last good content stays");
                }
                last_error = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        headers
    }

    #[test]
    fn a_token_without_its_name_is_admitted() {
        let tokens = AuthTokens::from_text("# people\nshop:abc\n\nadmin:d:e\n").expect("well-formed");
        assert!(tokens.admit(&headers("Bearer abc")));
        assert!(tokens.admit(&headers("bearer d:e")));
        assert!(tokens.admit(&headers("Bearer  abc")), "RFC 9110, section 11.4: one space or more");
        for value in ["Bearer shop:abc", "Bearer ab", "Bearer ", "Basic abc", "abc", "Bearerabc"] {
            assert!(!tokens.admit(&headers(value)), "{value}");
        }
        assert!(!tokens.admit(&HeaderMap::new()));
        let mut two = headers("Bearer abc");
        two.append(AUTHORIZATION, "Bearer abc".parse().expect("a header"));
        assert!(!tokens.admit(&two));
    }

    #[test]
    fn a_bad_line_is_named_without_its_token() {
        for text in
            ["secret", ":secret", "name:", "good:token\nsecret", "a:se cret", "a:sécret", "a:b\na:secret"]
        {
            let error = AuthTokens::from_text(text).expect_err(text).to_string();
            assert!(!error.contains("secret") && error.contains("line"), "{error}");
        }
        assert!(AuthTokens::from_text("\n# only a comment\n").is_err());
    }
}
