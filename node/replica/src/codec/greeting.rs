//! What is said once a connection or kept in the file: hellos, refusals, members, tables.

use minicbor::{Decoder, Encoder};
use mneme_api::{DURATION_MS_MAX, TableKind};

use super::{DecodeError, Output, Result, array, infallible, length, list, origin, put_origin};
use crate::effect::Meta;
use crate::id::NodeId;
use crate::message::{Hello, MemberInfo, Refusal, TableInfo};

/// Appends a hello.
pub fn encode_hello(hello: &Hello, bytes: &mut Vec<u8>) {
    let mut output = Encoder::new(bytes);
    infallible(output.array(11).and_then(|output| output.str(&hello.cluster)));
    put_origin(&mut output, hello.origin);
    infallible(output.u32(hello.protocol.0).and_then(|output| output.u32(hello.protocol.1)));
    for text in [&hello.name, &hello.address, &hello.version] {
        infallible(output.str(text));
    }
    put_tables(&mut output, &hello.tables);
    put_members(&mut output, &hello.members);
    infallible(output.array(hello.features.len() as u64));
    hello.features.iter().for_each(|feature| infallible(output.str(feature)));
    infallible(output.u64(hello.uptime_ms));
}

/// Reads a hello.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_hello`] never writes.
pub fn decode_hello(bytes: &[u8]) -> Result<Hello> {
    array(&mut Decoder::new(bytes), 11, |input| {
        Ok(Hello {
            cluster: text(input)?,
            origin: origin(input)?,
            protocol: (input.u32()?, input.u32()?),
            name: text(input)?,
            address: text(input)?,
            version: text(input)?,
            tables: list(input, table_info)?,
            members: list(input, member_info)?,
            features: list(input, text)?,
            uptime_ms: input.u64()?,
        })
    })
}

/// Appends a refusal.
pub fn encode_refusal(refusal: &Refusal, bytes: &mut Vec<u8>) {
    let mut output = Encoder::new(bytes);
    match refusal {
        Refusal::Myself => begin_refusal(&mut output, 0, 0),
        Refusal::Cluster { ours, theirs } => {
            begin_refusal(&mut output, 1, 2);
            infallible(output.str(ours).and_then(|output| output.str(theirs)));
        }
        Refusal::Protocol { ours, theirs } => {
            begin_refusal(&mut output, 2, 4);
            for number in [ours.0, ours.1, theirs.0, theirs.1] {
                infallible(output.u32(number));
            }
        }
        Refusal::TableKind { table } => {
            begin_refusal(&mut output, 3, 1);
            infallible(output.str(table));
        }
        Refusal::DuplicateId { node } => {
            begin_refusal(&mut output, 4, 1);
            infallible(output.u64(node.number()));
        }
        Refusal::Predecessor { node } => {
            begin_refusal(&mut output, 5, 1);
            infallible(output.u64(node.number()));
        }
        Refusal::Full => begin_refusal(&mut output, 6, 0),
        Refusal::Stopping => begin_refusal(&mut output, 7, 0),
    }
}

fn begin_refusal(output: &mut Output<'_>, tag: u8, fields: u64) {
    infallible(output.array(fields + 1).and_then(|output| output.u8(tag)));
}

/// Reads a refusal.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_refusal`] never writes.
pub fn decode_refusal(bytes: &[u8]) -> Result<Refusal> {
    let input = &mut Decoder::new(bytes);
    length(input)?;
    Ok(match input.u8()? {
        0 => Refusal::Myself,
        1 => Refusal::Cluster { ours: text(input)?, theirs: text(input)? },
        2 => Refusal::Protocol { ours: (input.u32()?, input.u32()?), theirs: (input.u32()?, input.u32()?) },
        3 => Refusal::TableKind { table: text(input)? },
        4 => Refusal::DuplicateId { node: NodeId::new(input.u64()?) },
        5 => Refusal::Predecessor { node: NodeId::new(input.u64()?) },
        6 => Refusal::Full,
        7 => Refusal::Stopping,
        _ => return Err(DecodeError::new("a refusal of unknown kind")),
    })
}

/// Appends what the file remembers besides states.
pub fn encode_meta(meta: &Meta, bytes: &mut Vec<u8>) {
    let mut output = Encoder::new(bytes);
    infallible(output.array(4));
    put_members(&mut output, &meta.members);
    infallible(output.array(meta.last_live.len() as u64));
    meta.last_live.iter().for_each(|node| infallible(output.u64(node.number())));
    put_tables(&mut output, &meta.tables);
    infallible(output.bool(meta.has_met_anyone));
}

/// Reads what [`encode_meta`] wrote.
///
/// # Errors
///
/// [`DecodeError`] for anything that [`encode_meta`] never writes.
pub fn decode_meta(bytes: &[u8]) -> Result<Meta> {
    let input = &mut Decoder::new(bytes);
    let fields = length(input)?;
    if fields < 3 {
        return Err(DecodeError::new("an array that is too short"));
    }
    let members = list(input, member_info)?;
    let last_live = list(input, |input| Ok(NodeId::new(input.u64()?)))?;
    let tables = list(input, table_info)?;
    // A file of an earlier version does not say.
    let has_met_anyone = if fields > 3 { input.bool()? } else { !members.is_empty() };
    Ok(Meta { members, last_live, tables, has_met_anyone })
}

fn text(input: &mut Decoder<'_>) -> Result<String> {
    Ok(input.str()?.to_owned())
}

pub(super) fn put_members(output: &mut Output<'_>, members: &[MemberInfo]) {
    infallible(output.array(members.len() as u64));
    for member in members {
        infallible(output.array(5).and_then(|output| output.u64(member.node.number())));
        infallible(output.u64(member.epoch).and_then(|output| output.str(&member.name)));
        infallible(output.str(&member.address).and_then(|output| output.bool(member.is_live)));
    }
}

pub(super) fn member_info(input: &mut Decoder<'_>) -> Result<MemberInfo> {
    array(input, 5, |input| {
        Ok(MemberInfo {
            node: NodeId::new(input.u64()?),
            epoch: input.u64()?,
            name: text(input)?,
            address: text(input)?,
            is_live: input.bool()?,
        })
    })
}

pub(super) fn put_tables(output: &mut Output<'_>, tables: &[TableInfo]) {
    infallible(output.array(tables.len() as u64));
    for table in tables {
        infallible(output.array(3).and_then(|output| output.str(table.name.as_str())));
        infallible(output.u8(kind_number(table.kind)).and_then(|output| output.u64(table.max_age_ever_ms)));
    }
}

pub(super) fn table_info(input: &mut Decoder<'_>) -> Result<TableInfo> {
    array(input, 3, |input| {
        let name = input.str()?.parse().map_err(|_| DecodeError::new("a table name"))?;
        let (kind, max_age_ever_ms) = (kind(input)?, input.u64()?);
        // It is kept for good, and how long tombstones stand is reckoned from it.
        if max_age_ever_ms > DURATION_MS_MAX {
            return Err(DecodeError::new("a longest life"));
        }
        Ok(TableInfo { name, kind, max_age_ever_ms })
    })
}

pub(super) const fn kind_number(kind: TableKind) -> u8 {
    match kind {
        TableKind::Session => 0,
        TableKind::Cache => 1,
    }
}

pub(super) fn kind(input: &mut Decoder<'_>) -> Result<TableKind> {
    match input.u8()? {
        0 => Ok(TableKind::Session),
        1 => Ok(TableKind::Cache),
        _ => Err(DecodeError::new("a table kind")),
    }
}
