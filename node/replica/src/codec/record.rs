//! Rows: `[table, kind, subject, value register or null, touch register or null]`.

use std::sync::Arc;

use minicbor::Decoder;
use minicbor::data::Type;
use mneme_api::Key;

use super::greeting::{kind, kind_number};
use super::{
    DecodeError, Output, Result, array, dot, infallible, is_null, length, put_dot, put_version, version,
};
use crate::id::KeyHash;
use crate::record::{Body, Record, Row, Subject, TouchRegister, Value, ValueRegister};

/// Idle deadlines have a bit to spare in memory; this is 290 million years.
const IDLE_DEADLINE_MS_MAX: u64 = u64::MAX >> 1;
/// Fields of a value register that this version knows.
const VALUE_FIELDS: u64 = 5;

pub(super) fn put_row(output: &mut Output<'_>, row: &Row) {
    infallible(output.array(5).and_then(|output| output.str(row.table.as_str())));
    infallible(output.u8(kind_number(row.kind)));
    match &row.subject {
        Subject::Key(key) => infallible(output.bytes(key.encoded())),
        // A tag of its own kind: an array around the hash.
        Subject::Hash(hash) => infallible(output.array(1).and_then(|output| output.bytes(hash.bytes()))),
    }
    match &row.record.value {
        Some(register) => put_value(output, register),
        None => infallible(output.null()),
    }
    match &row.record.touch {
        Some(touch) => {
            infallible(output.array(3));
            put_version(output, touch.base);
            infallible(output.u64(touch.idle_deadline_ms));
            put_dot(output, touch.dot);
        }
        None => infallible(output.null()),
    }
}

fn put_value(output: &mut Output<'_>, register: &ValueRegister) {
    let unknown = register.unknown.as_deref().unwrap_or_default();
    let (count, unknown) = split_unknown(unknown);
    infallible(output.array(VALUE_FIELDS + count));
    put_version(output, register.version);
    infallible(output.u64(register.sequence));
    infallible(output.u64(register.absolute_deadline_ms));
    infallible(output.u64(register.bury_until_ms));
    match &register.body {
        Body::Live(value) => infallible(output.bytes(value.packed())),
        Body::Deleted => infallible(output.null()),
    }
    output.writer_mut().extend_from_slice(unknown);
}

/// Fields kept from a newer peer. Shape: their number (8 bytes, big endian), then their CBOR.
fn split_unknown(unknown: &[u8]) -> (u64, &[u8]) {
    match unknown.split_first_chunk::<8>() {
        Some((count, fields)) => (u64::from_be_bytes(*count), fields),
        None => (0, &[]),
    }
}

pub(super) fn row(input: &mut Decoder<'_>) -> Result<Row> {
    array(input, 5, |input| {
        let table = input.str()?.parse().map_err(|_| DecodeError::new("a table name"))?;
        let kind = kind(input)?;
        let subject = subject(input)?;
        let value = if is_null(input)? { None } else { Some(value(input)?) };
        let touch = if is_null(input)? { None } else { Some(touch(input)?) };
        let record = Record { value, touch };
        if record.live().is_some() && !matches!(subject, Subject::Key(_)) {
            return Err(DecodeError::new("a live value without its key"));
        }
        let hash = subject.hash();
        Ok(Row { table, kind, subject, hash, record })
    })
}

fn subject(input: &mut Decoder<'_>) -> Result<Subject> {
    if input.datatype()? == Type::Array {
        return array(input, 1, |input| {
            let hash = input.bytes()?.try_into().map_err(|_| DecodeError::new("a key hash"))?;
            Ok(Subject::Hash(KeyHash::from_bytes(hash)))
        });
    }
    Key::from_encoded(input.bytes()?).map(Subject::Key).map_err(|_| DecodeError::new("a key"))
}

fn value(input: &mut Decoder<'_>) -> Result<ValueRegister> {
    let count = length(input)?;
    if count < VALUE_FIELDS {
        return Err(DecodeError::new("a value register"));
    }
    let (version, sequence) = (version(input)?, input.u64()?);
    let (absolute_deadline_ms, bury_until_ms) = (input.u64()?, input.u64()?);
    if sequence == 0 {
        return Err(DecodeError::new("a sequence"));
    }
    let body = if is_null(input)? {
        Body::Deleted
    } else {
        Body::Live(Value::from_packed(input.bytes()?).ok_or(DecodeError::new("a value"))?)
    };
    let start = input.position();
    for _ in VALUE_FIELDS..count {
        input.skip()?;
    }
    let fields = &input.input()[start..input.position()];
    let unknown = (count > VALUE_FIELDS).then(|| {
        let mut unknown = (count - VALUE_FIELDS).to_be_bytes().to_vec();
        unknown.extend_from_slice(fields);
        Arc::from(unknown)
    });
    Ok(ValueRegister { version, sequence, absolute_deadline_ms, bury_until_ms, body, unknown })
}

fn touch(input: &mut Decoder<'_>) -> Result<TouchRegister> {
    array(input, 3, |input| {
        let (base, idle_deadline_ms) = (version(input)?, input.u64()?);
        if idle_deadline_ms > IDLE_DEADLINE_MS_MAX {
            return Err(DecodeError::new("an idle deadline"));
        }
        Ok(TouchRegister { base, idle_deadline_ms, dot: dot(input)? })
    })
}
