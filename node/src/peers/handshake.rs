//! The handshake of a link: who dials proves the cluster secret on each lane and is answered a proof, then both say
//! hello once, on the heartbeat lane.
//!
//! ```text
//! dialler → "mneme-1", link (8), lane (1), nonce (32)
//! dialler ← nonce (32), proof (32, or nothing without a secret)
//! dialler → proof, then on the heartbeat lane the hello
//! dialler ← heartbeat lane only: 0 hello | 1 refusal | 2 secret | 3 linked already, node id (8)
//! ```
//!
//! A proof is keyed BLAKE3 over who speaks, both nonces, link and lane: it shows that its maker knows the secret and is
//! good for this connection alone. It does not hide what follows; that is for TLS.

use bytes::Bytes;
use mneme_replica::codec;
use mneme_replica::id::NodeId;
use mneme_replica::message::{Hello, Lane, Refusal};
use subtle::ConstantTimeEq;

use super::lanes::lane_number;
use super::wire::{WireError, put_frame};

const MAGIC: &[u8; 7] = b"mneme-1";
/// Bytes of a nonce and of a proof.
const NONCE_BYTES: usize = 32;

/// A nonce.
pub(super) type Nonce = [u8; NONCE_BYTES];

/// A fresh nonce.
pub(super) fn nonce() -> Nonce {
    rand::random()
}

/// The cluster secret: any of its lines is accepted, the first is used. Empty: nobody has to prove anything.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClusterSecret {
    keys: Vec<[u8; 32]>,
}

impl ClusterSecret {
    /// The secret of a file's text: each line that is not blank is one.
    pub fn from_text(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self { keys: lines.map(|line| blake3::derive_key("mneme cluster secret", line.as_bytes())).collect() }
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn prove(&self, said: &Said<'_>) -> Vec<u8> {
        self.keys.first().map(|key| said.proof(key).to_vec()).unwrap_or_default()
    }

    fn is_proved(&self, said: &Said<'_>, proof: &[u8]) -> bool {
        let is_any = self.keys.iter().any(|key| bool::from(said.proof(key)[..].ct_eq(proof)));
        is_any || self.keys.is_empty()
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secret lines", self.keys.len())
    }
}

/// What a proof is about.
struct Said<'a> {
    role: &'static [u8],
    preface: &'a Preface,
    answer: &'a Nonce,
}

impl Said<'_> {
    fn proof(&self, key: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(self.role).update(&self.preface.nonce).update(self.answer);
        hasher.update(&self.preface.link.to_be_bytes()).update(&[self.preface.lane]);
        *hasher.finalize().as_bytes()
    }
}

/// First frame on every lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preface {
    pub(super) link: u64,
    lane: u8,
    nonce: Nonce,
}

impl Preface {
    pub(super) fn new(link: u64, lane: Lane) -> Self {
        Self { link, lane: lane_number(lane), nonce: nonce() }
    }

    pub(super) fn lane(&self) -> Lane {
        Lane::ALL[usize::from(self.lane)]
    }

    pub(super) fn encode(&self) -> Bytes {
        frame(|buffer| {
            buffer.extend_from_slice(MAGIC);
            buffer.extend_from_slice(&self.link.to_be_bytes());
            buffer.push(self.lane);
            buffer.extend_from_slice(&self.nonce);
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let read = || {
            let rest = bytes.strip_prefix(MAGIC)?;
            let (link, rest) = rest.split_first_chunk::<8>()?;
            let (lane, rest) = rest.split_first()?;
            let nonce = *rest.first_chunk::<NONCE_BYTES>()?;
            let is_lane = usize::from(*lane) < Lane::ALL.len();
            is_lane.then_some(Self { link: u64::from_be_bytes(*link), lane: *lane, nonce })
        };
        read().ok_or(WireError::Handshake)
    }

    /// The acceptor's answer to this preface.
    pub(super) fn answer(&self, secret: &ClusterSecret, answer: &Nonce) -> Bytes {
        let proof = secret.prove(&Said { role: b"acceptor", preface: self, answer });
        frame(|buffer| {
            buffer.extend_from_slice(answer);
            buffer.extend_from_slice(&proof);
        })
    }

    /// The acceptor's nonce, if its proof is good; `None` when it does not know the secret.
    pub(super) fn check_answer(
        &self,
        secret: &ClusterSecret,
        bytes: &[u8],
    ) -> Result<Option<Nonce>, WireError> {
        let (nonce, proof) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(WireError::Handshake)?;
        let said = Said { role: b"acceptor", preface: self, answer: nonce };
        Ok(secret.is_proved(&said, proof).then_some(*nonce))
    }

    /// The dialler's proof, with its hello on the heartbeat lane.
    pub(super) fn prove(&self, secret: &ClusterSecret, answer: &Nonce, hello: Option<&Hello>) -> Bytes {
        let proof = secret.prove(&Said { role: b"dialler", preface: self, answer });
        frame(|buffer| {
            buffer.push(u8::from(!proof.is_empty()));
            buffer.extend_from_slice(&proof);
            if let Some(hello) = hello {
                codec::encode_hello(hello, buffer);
            }
        })
    }

    /// Whether the dialler knows the secret, and the bytes of its hello.
    pub(super) fn check_proof<'a>(
        &self,
        secret: &ClusterSecret,
        answer: &Nonce,
        bytes: &'a [u8],
    ) -> Result<Option<&'a [u8]>, WireError> {
        let (has_proof, rest) = bytes.split_first().ok_or(WireError::Handshake)?;
        let proof_bytes = if *has_proof == 1 { NONCE_BYTES } else { 0 };
        let (proof, hello) = rest.split_at_checked(proof_bytes).ok_or(WireError::Handshake)?;
        let said = Said { role: b"dialler", preface: self, answer };
        Ok(secret.is_proved(&said, proof).then_some(hello))
    }
}

/// How the acceptor ends a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken; its own hello.
    Hello(Box<Hello>),
    /// Refused by the replica.
    Refused(Refusal),
    /// The dialler does not know the cluster secret.
    Secret,
    /// A link between the two processes is up already; who answers here.
    Linked(NodeId),
}

impl Verdict {
    pub(super) fn encode(&self) -> Bytes {
        frame(|buffer| match self {
            Self::Hello(hello) => {
                buffer.push(0);
                codec::encode_hello(hello, buffer);
            }
            Self::Refused(refusal) => {
                buffer.push(1);
                codec::encode_refusal(refusal, buffer);
            }
            Self::Secret => buffer.push(2),
            Self::Linked(node) => {
                buffer.push(3);
                buffer.extend_from_slice(&node.number().to_be_bytes());
            }
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.split_first().ok_or(WireError::Handshake)? {
            (0, rest) => Ok(Self::Hello(Box::new(codec::decode_hello(rest)?))),
            (1, rest) => Ok(Self::Refused(codec::decode_refusal(rest)?)),
            (2, _) => Ok(Self::Secret),
            (3, rest) => {
                let node = rest.first_chunk::<8>().ok_or(WireError::Handshake)?;
                Ok(Self::Linked(NodeId::new(u64::from_be_bytes(*node))))
            }
            _ => Err(WireError::Handshake),
        }
    }
}

fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(64);
    put_frame(&mut buffer, write);
    buffer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(acceptor: &str, dialler: &str, expected: (bool, bool)) {
        let (acceptor, dialler) = (ClusterSecret::from_text(acceptor), ClusterSecret::from_text(dialler));
        let preface = Preface::new(7, Lane::Heartbeat);
        let answer = nonce();
        let answered = preface.answer(&acceptor, &answer);
        let checked = preface.check_answer(&dialler, &answered[4..]).expect("well-formed");
        let proof = preface.prove(&dialler, &answer, None);
        let proved = preface.check_proof(&acceptor, &answer, &proof[4..]).expect("well-formed");
        assert_eq!((checked.is_some(), proved.is_some()), expected);
    }

    #[test]
    fn both_ends_must_know_the_secret() {
        check("", "", (true, true));
        check("one", "one", (true, true));
        check("one", "two", (false, false));
        check("one", "", (true, false));
        check("", "one", (false, true));
    }

    #[test]
    fn a_secret_is_rotated_line_by_line() {
        // Everybody learns the new line, then everybody uses it, then the old one goes.
        check("old\nnew", "old", (true, true));
        check("new\nold", "old\nnew", (true, true));
        check("new", "new\nold", (true, true));
        check("new", "old", (false, false));
    }

    #[test]
    fn a_proof_is_good_for_one_connection() {
        let secret = ClusterSecret::from_text("one");
        let (first, second) = (Preface::new(7, Lane::Push), Preface::new(7, Lane::Push));
        let answer = nonce();
        let proof = first.prove(&secret, &answer, None);
        assert_eq!(second.check_proof(&secret, &answer, &proof[4..]).expect("well-formed"), None);
        assert_eq!(first.check_proof(&secret, &nonce(), &proof[4..]).expect("well-formed"), None);
    }

    #[test]
    fn a_malformed_handshake_is_refused() {
        assert!(Preface::decode(b"GET / HTTP/1.1").is_err());
        let preface = Preface::new(7, Lane::Bulk).encode();
        assert_eq!(Preface::decode(&preface[4..]).expect("as written").lane(), Lane::Bulk);
        let mut wrong_lane = preface[4..].to_vec();
        wrong_lane[15] = 3;
        assert!(Preface::decode(&wrong_lane).is_err());
        assert!(Verdict::decode(&[9]).is_err());
        let linked = Verdict::Linked(NodeId::new(7));
        assert_eq!(Verdict::decode(&linked.encode()[4..]).expect("as written"), linked);
    }
}
