//! What a million blocks and 200,000 tracked clients cost: nanoseconds a lookup, bytes of memory.
//!
//! `cargo run --release -p gateway --example lookup_cost`

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{
    fs,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use gateway::{
    block_list::BlockList,
    store::raw_block::{RawBlock, address_key},
    waf::evidence::Clients,
};
use waf_model::{keys::ClientKey, observation::Observation};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOOKUPS: usize = 1_000_000;

fn main() -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(1);
    clients(&mut random);
    blocks(&mut random)
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}

fn any_address(random: &mut fastrand::Rng) -> IpAddr {
    if random.u8(..) < 64 {
        IpAddr::V6(Ipv6Addr::from(0x2000 << 112 | random.u128(..) >> 4))
    } else {
        IpAddr::V4(Ipv4Addr::from(random.u32(..)))
    }
}

fn clients(random: &mut fastrand::Rng) {
    let before = resident();
    let clients = Clients::new(200_000);
    let observation = Observation::default();
    for _ in 0..220_000 {
        clients.observe(&address_key(any_address(random)), 1, &observation);
    }
    let used = resident().saturating_sub(before);
    println!("clients  {} tracked in {} MB", clients.len(), used / 1_000_000);
}

fn blocks(random: &mut fastrand::Rng) -> Result<(), String> {
    let before = resident();
    let list = BlockList::default();
    let (mut addresses, mut keys) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for number in 0..1_000_000_u32 {
        let client = match number % 4 {
            0 | 1 => {
                let address = any_address(random);
                addresses.push(address);
                address_key(address)
            }
            2 => {
                let key = ClientKey::ApiKey(format!("{:016x}", random.u64(..)));
                keys.push(key.clone());
                key
            }
            _ => {
                let length = if random.bool() { random.u8(16..32) } else { 24 };
                ClientKey::Address(format!("{}/{length}", Ipv4Addr::from(random.u32(..))))
            }
        };
        let raw =
            RawBlock { client: client.to_string(), reason: Some("bench".to_owned()), ..RawBlock::default() };
        list.insert(Arc::new(raw.check(0)?));
    }
    let used = resident().saturating_sub(before);
    println!(
        "blocks   {} in {} MB ({} bytes each), made in {:.1} s",
        list.len(),
        used / 1_000_000,
        used / list.len().max(1),
        started.elapsed().as_secs_f64()
    );
    let unknown: Vec<IpAddr> = (0..LOOKUPS).map(|_| any_address(random)).collect();
    let measure = |what: &str, lookups: &[Vec<ClientKey>]| {
        let started = Instant::now();
        let found = lookups.iter().filter(|keys| black_box(list.find(keys, "route", 1)).is_some()).count();
        let each = started.elapsed().as_nanos() / lookups.len().max(1) as u128;
        println!("lookup   {each:>4} ns  {what} ({found} of {} blocked)", lookups.len());
    };
    let of = |addresses: &[IpAddr]| {
        addresses.iter().map(|address| vec![address_key(*address)]).collect::<Vec<_>>()
    };
    measure("any address", &of(&unknown));
    measure("a blocked address", &of(&addresses));
    measure("a blocked key", &keys.iter().map(|key| vec![key.clone()]).collect::<Vec<_>>());
    Ok(())
}
