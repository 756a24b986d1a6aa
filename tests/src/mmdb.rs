//! A writer of small MMDB files, by the MaxMind DB file format specification 2.0, so that no database of others has to
//! lie in the tree.

use std::net::{IpAddr, Ipv6Addr};

/// What follows the search tree, before the data.
const SEPARATOR: usize = 16;

/// What begins the metadata.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// A value of the data section.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text.
    Text(&'static str),
    /// A number.
    Number(u32),
    /// Fields in order.
    Map(Vec<(&'static str, Value)>),
}

/// Where one side of a node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// The bytes of a database with a value for each network (address and prefix length); IPv4 lies at `::/96`.
pub fn write(networks: &[(IpAddr, u8, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (address, length, value) in networks {
        let (bits, length) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(*address)), u32::from(*length) + 96),
            IpAddr::V6(address) => (Ipv6Addr::to_bits(*address), u32::from(*length)),
        };
        let offset = data.len();
        encode(value, &mut data);
        insert(&mut nodes, bits, length, Record::Data(offset));
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match record {
            Record::Nothing => count,
            Record::Node(index) => *index,
            Record::Data(offset) => count + SEPARATOR + offset,
        };
        let [.., high, middle, low] = number.to_be_bytes();
        file.extend_from_slice(&[high, middle, low]);
    }
    file.extend_from_slice(&[0; SEPARATOR]);
    file.extend_from_slice(&data);
    file.extend_from_slice(MARKER);
    metadata(count, &mut file);
    file
}

fn insert(nodes: &mut Vec<[Record; 2]>, bits: u128, length: u32, leaf: Record) {
    let mut at = 0;
    for depth in 0..length {
        let side = usize::from((bits >> (127 - depth)) & 1 == 1);
        let next = nodes.len();
        let Some(record) = nodes.get_mut(at).and_then(|node| node.get_mut(side)) else { return };
        if depth + 1 == length {
            *record = leaf;
        } else if let Record::Node(index) = record {
            at = *index;
        } else {
            *record = Record::Node(next);
            nodes.push([Record::Nothing; 2]);
            at = next;
        }
    }
}

/// The head of a value: its type and its size.
fn head(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (first, more) = match u8::try_from(size) {
        Ok(size) if size < 29 => (size, None),
        Ok(size) => (29, Some(size - 29)),
        Err(_) => (29, Some(u8::MAX)),
    };
    if kind < 8 {
        out.push(kind << 5 | first);
    } else {
        out.extend_from_slice(&[first, kind - 7]);
    }
    out.extend(more);
}

fn text(value: &str, out: &mut Vec<u8>) {
    head(2, value.len(), out);
    out.extend_from_slice(value.as_bytes());
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(value) => text(value, out),
        Value::Number(number) => {
            head(6, 4, out);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Map(fields) => {
            head(7, fields.len(), out);
            for (name, value) in fields {
                text(name, out);
                encode(value, out);
            }
        }
    }
}

fn metadata(nodes: usize, out: &mut Vec<u8>) {
    let short = |name: &str, value: u16, out: &mut Vec<u8>| {
        text(name, out);
        head(5, 2, out);
        out.extend_from_slice(&value.to_be_bytes());
    };
    head(7, 9, out);
    short("binary_format_major_version", 2, out);
    short("binary_format_minor_version", 0, out);
    short("ip_version", 6, out);
    short("record_size", 24, out);
    text("node_count", out);
    encode(&Value::Number(u32::try_from(nodes).unwrap_or(u32::MAX)), out);
    text("build_epoch", out);
    head(9, 8, out);
    out.extend_from_slice(&1_700_000_000_u64.to_be_bytes());
    text("database_type", out);
    text("Test", out);
    text("description", out);
    head(7, 0, out);
    text("languages", out);
    head(11, 0, out);
}
