//! What does a program see that has chitchat in it, and when?
//!
//! One node on the loopback, in the lines that benchmarks/peers/__init__.py says: as a member it tells whom it takes for
//! alive; as one who hears it prints each write with the time at which it had it; as one who tells it makes the writes of
//! its own node that a line of input asks for. Nothing is set but the interval of gossip, which chitchat leaves to the
//! program; all else has the values of its own defaults.
//!
//!     chitchat member|hear|tell|tell-one INTERVAL NAME PORT [SEED ...]      (the interval in milliseconds)
//!     chitchat --version
//!
//! Not here: who starts it, and what is measured.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use chitchat::transport::UdpTransport;
use chitchat::{spawn_chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, ProtocolVersion};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

const SPAN: i64 = 512; // keys that are written in turn: more than are on their way at a time
const PREFIX: &str = "key-";

type Input = Lines<BufReader<Stdin>>;

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
fn now() -> i64 {
    let mut told = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut told) }, 0);
    told.tv_sec * 1_000_000_000 + told.tv_nsec
}

fn say(kind: &str, name: &str, members: usize) {
    println!("[{}, \"{kind}\", \"{name}\", {members}]", now() as f64 / 1e9);
}

fn local(port: &str) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
}

async fn start(interval: &str, name: &str, port: &str, seeds: &[String]) -> ChitchatHandle {
    let address = local(port);
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(name, 0, address),
        cluster_id: "bench".to_string(),
        gossip_interval: Duration::from_millis(interval.parse().expect("milliseconds")),
        listen_addr: address,
        seed_nodes: seeds.iter().map(|seed| local(seed).to_string()).collect(),
        failure_detector_config: Default::default(),
        marked_for_deletion_grace_period: Duration::from_secs(900),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V0,
    };
    spawn_chitchat(config, Vec::new(), &UdpTransport).await.expect("a port that is free")
}

/// Whom it takes for alive, itself included, until its input ends.
async fn member(node: ChitchatHandle, mut input: Input) {
    let mut alive = node.chitchat().lock().await.live_nodes_watcher();
    let mut before = BTreeSet::new();
    loop {
        tokio::select! {
            line = input.next_line() => if matches!(line, Ok(None) | Err(_)) { return },
            changed = alive.changed() => if changed.is_err() { return },
        }
        let names: BTreeSet<String> = alive.borrow_and_update().keys().map(|id| id.node_id.to_string()).collect();
        for name in names.difference(&before) {
            say("joined", name, names.len());
        }
        for name in before.difference(&names) {
            say("died", name, names.len());
        }
        before = names;
    }
}

/// A line a write: what was written, and when it was here.
async fn hear(node: ChitchatHandle, mut input: Input) {
    let chitchat = node.chitchat();
    chitchat.lock().await.subscribe_event(PREFIX, |event| println!("{} {}", event.value, now())).forever();
    println!("ready");
    while let Ok(Some(_)) = input.next_line().await {}
}

/// A line of input is a number and how many writes to make from it on. The number -1 is the end of a round.
async fn tell(node: ChitchatHandle, mut input: Input, one_key: bool) {
    let chitchat = node.chitchat();
    let mut alive = chitchat.lock().await.live_nodes_watcher();
    alive.wait_for(|nodes| nodes.len() == 2).await.expect("the node runs");
    println!("ready");
    while let Ok(Some(line)) = input.next_line().await {
        let mut words = line.split_whitespace().map(|word| word.parse::<i64>().expect("a number"));
        let (first, count) = (words.next().unwrap_or(-1), words.next().unwrap_or(1));
        let mut held = chitchat.lock().await;
        for number in first..first + count {
            let key = if number < 0 {
                -1
            } else if one_key {
                0
            } else {
                number % SPAN
            };
            held.self_node_state().set(format!("{PREFIX}{key}"), format!("{number} {}", now()));
        }
    }
}

/// Of chitchat, as it was built in.
fn version() -> &'static str {
    let (_, after) = include_str!("../Cargo.lock").split_once("name = \"chitchat\"\nversion = \"").expect("it is used");
    after.split('"').next().expect("a version")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, interval, name, port, seeds @ ..] = &arguments[..] else {
        println!("chitchat {}", version());
        return;
    };
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    if kind == "member" {
        say("imported", "", 0);
        if !matches!(input.next_line().await, Ok(Some(_))) {
            return;
        }
    }
    let node = start(interval, name, port, seeds).await;
    match kind.as_str() {
        "member" => member(node, input).await,
        "hear" => hear(node, input).await,
        _ => tell(node, input, kind == "tell-one").await,
    }
    std::process::exit(0) // a thread that reads the input may wait for ever
}
