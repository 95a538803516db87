//! Messages between replicas: `[tag, fields …]`. A tag that is not known is a [`DecodeError`]: a newer peer sends it
//! only when all members announce its feature.

use std::sync::Arc;

use minicbor::{Decoder, Encoder};

use super::greeting::{member_info, put_members, put_tables, table_info};
use super::{
    DecodeError, Output, Result, array, dot, infallible, is_null, length, list, origin, put_dot, put_origin,
    put_rows, put_vector, rows, vector,
};
use crate::id::{KeyHash, NodeId};
use crate::limits::DIGEST_BUCKETS;
use crate::message::{Heartbeat, Message, TableDigest};
use crate::record::Write;

/// Appends a message.
pub fn encode_message(message: &Message, bytes: &mut Vec<u8>) {
    let mut output = Encoder::new(bytes);
    put_message(&mut output, message);
}

/// Reads one message, which must be all there is.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_message`] never writes.
pub fn decode_message(bytes: &[u8]) -> Result<Message> {
    let mut input = Decoder::new(bytes);
    let count = length(&mut input)?;
    let tag = input.u8()?;
    let known = fields(tag).ok_or(DecodeError::new("a message of unknown kind"))?;
    if count < known {
        return Err(DecodeError::new("a message that is too short"));
    }
    let message = message(tag, &mut input)?;
    for _ in known..count {
        input.skip()?;
    }
    if input.position() == bytes.len() { Ok(message) } else { Err(DecodeError::new("bytes after a message")) }
}

/// Items in the array of a message, its tag included.
fn fields(tag: u8) -> Option<u64> {
    Some(match tag {
        0 | 2 | 3 | 8 => 2,
        1 | 5 | 9 | 13 => 5,
        4 | 11 => 4,
        6 | 7 => 3,
        10 => 6,
        12 => 1,
        _ => return None,
    })
}

fn begin<'a, 'b>(output: &'a mut Output<'b>, tag: u8) -> &'a mut Output<'b> {
    infallible(output.array(fields(tag).unwrap_or(1)).and_then(|output| output.u8(tag)));
    output
}

fn put_message(output: &mut Output<'_>, message: &Message) {
    match message {
        Message::Push { writes } => {
            infallible(begin(output, 0).array(writes.len() as u64));
            for write in writes {
                output.writer_mut().extend_from_slice(write.encoded());
            }
        }
        Message::Ack { origin, applied, durable, refused_clock } => {
            put_origin(begin(output, 1), *origin);
            infallible(output.u64(*applied).and_then(|output| output.u64(*durable)));
            infallible(output.bool(*refused_clock));
        }
        Message::NeedRecords { dot } => put_dot(begin(output, 2), *dot),
        Message::Heartbeat(heartbeat) => put_heartbeat(begin(output, 3), heartbeat),
        Message::Exchange { nonce, vector, approaches } => {
            infallible(begin(output, 4).u64(*nonce));
            put_vector(output, vector);
            infallible(output.u32(*approaches));
        }
        Message::ExchangeReply { nonce, is_counted, vector, live } => {
            infallible(begin(output, 5).u64(*nonce).and_then(|output| output.bool(*is_counted)));
            put_vector(output, vector);
            infallible(output.array(live.len() as u64));
            live.iter().for_each(|node| infallible(output.u64(node.number())));
        }
        Message::DeltaRequest { delta, vector } => {
            infallible(begin(output, 6).u64(*delta));
            put_vector(output, vector);
        }
        Message::DeltaNext { delta, page } => {
            infallible(begin(output, 7).u64(*delta).and_then(|output| output.u64(*page)));
        }
        Message::DeltaRefused { delta } => infallible(begin(output, 8).u64(*delta)),
        Message::DeltaPage { delta, page, rows, vector } => {
            infallible(begin(output, 9).u64(*delta).and_then(|output| output.u64(*page)));
            put_rows(output, rows);
            match vector {
                Some(vector) => put_vector(output, vector),
                None => infallible(output.null()),
            }
        }
        Message::Bucket { step, table, bucket, vector, rows } => {
            infallible(begin(output, 10).u64(*step).and_then(|output| output.str(table.as_str())));
            infallible(output.u32(*bucket));
            put_vector(output, vector);
            infallible(output.array(rows.len() as u64));
            for (hash, sum) in rows {
                infallible(output.array(2).and_then(|output| output.bytes(hash.bytes())));
                infallible(output.u64(*sum));
            }
        }
        Message::Digest { step, vector, tables } => {
            infallible(begin(output, 11).u64(*step));
            put_vector(output, vector);
            infallible(output.array(tables.len() as u64));
            tables.iter().for_each(|digest| put_digest(output, digest));
        }
        Message::Goodbye => {
            begin(output, 12);
        }
        Message::Repair { table, rows, wanted, is_divergence } => {
            infallible(begin(output, 13).str(table.as_str()));
            put_rows(output, rows);
            infallible(output.array(wanted.len() as u64));
            wanted.iter().for_each(|hash| infallible(output.bytes(hash.bytes())));
            infallible(output.bool(*is_divergence));
        }
    }
}

fn message(tag: u8, input: &mut Decoder<'_>) -> Result<Message> {
    Ok(match tag {
        0 => Message::Push { writes: list(input, |input| write(input).map(Arc::new))? },
        1 => Message::Ack {
            origin: origin(input)?,
            applied: input.u64()?,
            durable: input.u64()?,
            refused_clock: input.bool()?,
        },
        2 => Message::NeedRecords { dot: dot(input)? },
        3 => Message::Heartbeat(Box::new(heartbeat(input)?)),
        4 => Message::Exchange { nonce: input.u64()?, vector: vector(input)?, approaches: input.u32()? },
        5 => Message::ExchangeReply {
            nonce: input.u64()?,
            is_counted: input.bool()?,
            vector: vector(input)?,
            live: list(input, |input| Ok(NodeId::new(input.u64()?)))?,
        },
        6 => Message::DeltaRequest { delta: input.u64()?, vector: vector(input)? },
        7 => Message::DeltaNext { delta: input.u64()?, page: input.u64()? },
        8 => Message::DeltaRefused { delta: input.u64()? },
        9 => Message::DeltaPage {
            delta: input.u64()?,
            page: input.u64()?,
            rows: rows(input)?,
            vector: if is_null(input)? { None } else { Some(vector(input)?) },
        },
        10 => Message::Bucket {
            step: input.u64()?,
            table: table_name(input)?,
            bucket: bucket(input)?,
            vector: vector(input)?,
            rows: list(input, |input| array(input, 2, |input| Ok((hash(input)?, input.u64()?))))?,
        },
        11 => Message::Digest { step: input.u64()?, vector: vector(input)?, tables: list(input, digest)? },
        12 => Message::Goodbye,
        _ => Message::Repair {
            table: table_name(input)?,
            rows: rows(input)?,
            wanted: list(input, hash)?,
            is_divergence: input.bool()?,
        },
    })
}

fn write(input: &mut Decoder<'_>) -> Result<Write> {
    let start = input.position();
    let write = array(input, 2, |input| Ok(Write::new(dot(input)?, rows(input)?)))?;
    let encoded = &input.input()[start..input.position()];
    Ok(write.with_encoded(encoded))
}

fn hash(input: &mut Decoder<'_>) -> Result<KeyHash> {
    let bytes = input.bytes()?.try_into().map_err(|_| DecodeError::new("a key hash"))?;
    Ok(KeyHash::from_bytes(bytes))
}

fn bucket(input: &mut Decoder<'_>) -> Result<u32> {
    let bucket = input.u32()?;
    if (bucket as usize) < DIGEST_BUCKETS { Ok(bucket) } else { Err(DecodeError::new("a bucket number")) }
}

fn table_name(input: &mut Decoder<'_>) -> Result<mneme_api::TableName> {
    input.str()?.parse().map_err(|_| DecodeError::new("a table name"))
}

/// Sums as one byte string: a thousand numbers in CBOR would be a thousand heads.
fn put_digest(output: &mut Output<'_>, digest: &TableDigest) {
    let sums: Vec<u8> = digest.sums.iter().flat_map(|sum| sum.to_be_bytes()).collect();
    infallible(output.array(2).and_then(|output| output.str(digest.table.as_str())));
    infallible(output.bytes(&sums));
}

fn digest(input: &mut Decoder<'_>) -> Result<TableDigest> {
    array(input, 2, |input| {
        let (table, bytes) = (table_name(input)?, input.bytes()?);
        let (sums, rest) = bytes.as_chunks::<8>();
        if sums.len() != DIGEST_BUCKETS || !rest.is_empty() {
            return Err(DecodeError::new("a digest"));
        }
        Ok(TableDigest { table, sums: sums.iter().map(|sum| u64::from_be_bytes(*sum)).collect() })
    })
}

fn put_heartbeat(output: &mut Output<'_>, heartbeat: &Heartbeat) {
    infallible(output.array(12));
    put_vector(output, &heartbeat.applied);
    put_vector(output, &heartbeat.durable);
    infallible(output.u64(heartbeat.node_time_ms).and_then(|output| output.u64(heartbeat.wall_time_ms)));
    for flag in [
        heartbeat.acknowledges_without_you,
        heartbeat.despite_your_refusal,
        heartbeat.commit_stalled,
        heartbeat.refuses_your_clock,
        heartbeat.is_ready,
        heartbeat.is_clock_confirmed,
    ] {
        infallible(output.bool(flag));
    }
    put_members(output, &heartbeat.members);
    put_tables(output, &heartbeat.tables);
}

fn heartbeat(input: &mut Decoder<'_>) -> Result<Heartbeat> {
    array(input, 12, |input| {
        Ok(Heartbeat {
            applied: vector(input)?,
            durable: vector(input)?,
            node_time_ms: input.u64()?,
            wall_time_ms: input.u64()?,
            acknowledges_without_you: input.bool()?,
            despite_your_refusal: input.bool()?,
            commit_stalled: input.bool()?,
            refuses_your_clock: input.bool()?,
            is_ready: input.bool()?,
            is_clock_confirmed: input.bool()?,
            members: list(input, member_info)?,
            tables: list(input, table_info)?,
        })
    })
}
