//! Bytes of rows, writes, vectors and handshakes: what travels and what lies in the file.
//!
//! CBOR arrays with positional fields. A decoder takes arrays that are longer than it knows: the
//! rest comes from a newer peer. In a value register that rest is kept and written out again; in
//! everything else it is skipped. No bytes make a decoder panic or allocate more than they hold.

mod greeting;
mod message;
mod record;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

pub use self::greeting::{
    decode_hello, decode_meta, decode_refusal, encode_hello, encode_meta, encode_refusal,
};
pub use self::message::{decode_message, encode_message};
use crate::id::{Dot, NodeId, Origin};
use crate::record::{Row, Write};
use crate::version::{Stamp, Version};
use crate::version_vector::VersionVector;

#[cfg(test)]
mod tests;

/// Bytes that are not what they should be. Says where, never what: they may hold a key.
#[derive(Debug, thiserror::Error)]
#[error("failed to decode {what}")]
pub struct DecodeError {
    what: &'static str,
    #[source]
    source: Option<minicbor::decode::Error>,
}

impl DecodeError {
    const fn new(what: &'static str) -> Self {
        Self { what, source: None }
    }
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(source: minicbor::decode::Error) -> Self {
        Self { what: "CBOR", source: Some(source) }
    }
}

type Output<'a> = Encoder<&'a mut Vec<u8>>;
type Result<T> = std::result::Result<T, DecodeError>;

/// Writing to a `Vec` cannot fail.
fn infallible<T>(result: std::result::Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    if result.is_err() {
        unreachable!("a Vec takes every byte");
    }
}

/// Appends a write.
pub fn encode_write(write: &Write, bytes: &mut Vec<u8>) {
    let mut output = Encoder::new(bytes);
    infallible(output.array(2));
    put_dot(&mut output, write.dot);
    put_rows(&mut output, &write.rows);
}

/// Reads one write, and says how many bytes it took.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_write`] never writes.
pub fn decode_write(bytes: &[u8]) -> Result<(Write, usize)> {
    let mut input = Decoder::new(bytes);
    let write = array(&mut input, 2, |input| Ok(Write::new(dot(input)?, rows(input)?)))?;
    Ok((write, input.position()))
}

/// Appends rows.
pub fn encode_rows(rows: &[Row], bytes: &mut Vec<u8>) {
    put_rows(&mut Encoder::new(bytes), rows);
}

/// Reads rows, and says how many bytes they took.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_rows`] never writes.
pub fn decode_rows(bytes: &[u8]) -> Result<(Vec<Row>, usize)> {
    let mut input = Decoder::new(bytes);
    let rows = rows(&mut input)?;
    Ok((rows, input.position()))
}

/// Appends what a vector holds for certain.
pub fn encode_vector(vector: &VersionVector, bytes: &mut Vec<u8>) {
    put_vector(&mut Encoder::new(bytes), vector);
}

/// Reads a vector, and says how many bytes it took.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_vector`] never writes.
pub fn decode_vector(bytes: &[u8]) -> Result<(VersionVector, usize)> {
    let mut input = Decoder::new(bytes);
    let vector = vector(&mut input)?;
    Ok((vector, input.position()))
}

fn put_vector(output: &mut Output<'_>, vector: &VersionVector) {
    let certain = || vector.iter().filter(|(_, entry)| entry.contiguous > 0);
    infallible(output.array(certain().count() as u64));
    for (origin, entry) in certain() {
        infallible(output.array(3));
        put_origin(output, origin);
        infallible(output.u64(entry.contiguous).and_then(|output| output.u64(entry.last_write_ms)));
    }
}

fn vector(input: &mut Decoder<'_>) -> Result<VersionVector> {
    let mut vector = VersionVector::default();
    for _ in 0..length(input)? {
        array(input, 3, |input| {
            let (origin, contiguous, last_write_ms) = (origin(input)?, input.u64()?, input.u64()?);
            // An origin enters a vector with its first write.
            if contiguous == 0 {
                return Err(DecodeError::new("a sequence"));
            }
            vector.insert(origin, contiguous, last_write_ms);
            Ok(())
        })?;
    }
    Ok(vector)
}

fn put_rows(output: &mut Output<'_>, rows: &[Row]) {
    infallible(output.array(rows.len() as u64));
    for row in rows {
        record::put_row(output, row);
    }
}

fn rows(input: &mut Decoder<'_>) -> Result<Vec<Row>> {
    list(input, record::row)
}

/// Reads an array of any length.
fn list<T>(input: &mut Decoder<'_>, mut read: impl FnMut(&mut Decoder<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = length(input)?;
    // Not reserved by the count, which is the sender's word: for one, which nearly all have, and then as they come.
    let mut items = Vec::with_capacity(usize::from(count > 0));
    for _ in 0..count {
        items.push(read(input)?);
    }
    Ok(items)
}

fn put_origin(output: &mut Output<'_>, origin: Origin) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&origin.node.number().to_be_bytes());
    bytes[8..].copy_from_slice(&origin.epoch.to_be_bytes());
    infallible(output.bytes(&bytes));
}

fn origin(input: &mut Decoder<'_>) -> Result<Origin> {
    let bytes: [u8; 16] = input.bytes()?.try_into().map_err(|_| DecodeError::new("an origin"))?;
    let number = u128::from_be_bytes(bytes);
    let low = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
    Ok(Origin { node: NodeId::new(low(number >> 64)), epoch: low(number) })
}

fn put_dot(output: &mut Output<'_>, dot: Dot) {
    infallible(output.array(2));
    put_origin(output, dot.origin);
    infallible(output.u64(dot.sequence));
}

fn dot(input: &mut Decoder<'_>) -> Result<Dot> {
    array(input, 2, |input| {
        let (origin, sequence) = (origin(input)?, input.u64()?);
        // Sequences are 1-based: 0 would be covered by every vector.
        if sequence == 0 { Err(DecodeError::new("a sequence")) } else { Ok(Dot { origin, sequence }) }
    })
}

fn put_version(output: &mut Output<'_>, version: Version) {
    infallible(output.array(2));
    infallible(output.u64(version.stamp.bits()));
    put_origin(output, version.origin);
}

fn version(input: &mut Decoder<'_>) -> Result<Version> {
    array(input, 2, |input| Ok(Version { stamp: Stamp::from_bits(input.u64()?), origin: origin(input)? }))
}

/// Reads an array of at least `known` fields and skips what a newer peer added.
fn array<T>(
    input: &mut Decoder<'_>,
    known: u64,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T>,
) -> Result<T> {
    let count = length(input)?;
    if count < known {
        return Err(DecodeError::new("an array that is too short"));
    }
    let value = read(input)?;
    for _ in known..count {
        input.skip()?;
    }
    Ok(value)
}

/// Length of an array; arrays of unknown length are never written.
fn length(input: &mut Decoder<'_>) -> Result<u64> {
    input.array()?.ok_or(DecodeError::new("an array of unknown length"))
}

fn is_null(input: &mut Decoder<'_>) -> Result<bool> {
    let is_null = input.datatype()? == Type::Null;
    if is_null {
        input.null()?;
    }
    Ok(is_null)
}
